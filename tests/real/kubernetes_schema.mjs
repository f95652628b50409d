// Holds Kubernetes objects (a JSON array on standard input) against the schemas of the package kubernetes-models, found
// below the folder that the first argument names. Prints a JSON array of faults. The schemas let fields pass that they do
// not know; so the validator is given an object that notes what was read of it: a field that nobody read is unknown.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";

const require = createRequire(import.meta.url);
const schemas = resolve(process.argv[2], "node_modules", "kubernetes-models", "_schemas");

function watched(value, path, unread) {
  if (value === null || typeof value !== "object") return value;
  const within = (key) => (Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`);
  const inner = Array.isArray(value) ? [] : {};
  for (const [key, found] of Object.entries(value)) {
    unread.add(within(key));
    inner[key] = watched(found, within(key), unread);
  }
  return new Proxy(inner, {
    get(target, key) {
      if (typeof key === "string") unread.delete(within(key));
      return target[key];
    },
  });
}

function faults(object) {
  const { apiVersion, kind } = object;
  const [group, version] = apiVersion.includes("/") ? apiVersion.split("/") : ["core", apiVersion];
  const named = [group, version, kind].map((word) => word[0].toUpperCase() + word.slice(1)).join("");
  const { validate } = require(join(schemas, `IoK8sApi${named}.js`));
  const unread = new Set();
  const good = validate(watched(object, kind, unread));
  const said = good ? [] : (validate.errors ?? []).map((error) => `${kind}${error.instancePath}: ${error.keyword}`);
  return [...said, ...[...unread].map((path) => `${path}: no such field`)];
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).flatMap(faults)));
