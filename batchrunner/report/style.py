"""How the page looks: light or dark as the reader's system is, on a phone, on a desktop, on paper."""

CSS = """
:root{color-scheme:light dark;
--paper:#fff;--panel:#f6f7f9;--ink:#1c2128;--muted:#59636e;--line:#d8dde3;--accent:#2563c9;--limit:#8a4fd0;
--good:#1b7f4d;--bad:#c13632;--warn:#9a6100}
@media (prefers-color-scheme:dark){:root{
--paper:#0f1318;--panel:#181d24;--ink:#e4e8ed;--muted:#9ba6b2;--line:#2d353f;--accent:#6ca6f8;--limit:#c09af0;
--good:#4fc28c;--bad:#ff837b;--warn:#e3a850}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
overflow-wrap:anywhere}
header,main,footer{max-width:1120px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 6px}
h2{font-size:1.25rem;margin:0 0 10px}
h3{font-size:1rem;margin:0 0 4px}
p{margin:0 0 8px;max-width:72ch}
.state{display:inline-block;margin:0 0 18px;padding:2px 10px;border-radius:12px;
border:1px solid currentColor;font-size:.9rem}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(138px,1fr));gap:10px;margin:0 0 18px}
.figures div{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.figures dt{color:var(--muted);font-size:.85rem}
.figures dd{margin:0}
.figures .value{font-size:1.5rem;font-weight:650;line-height:1.25;font-variant-numeric:tabular-nums}
.figures .note{color:var(--muted);font-size:.85rem}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:0 0 18px;font-size:.9rem}
.facts dt{color:var(--muted)}
.facts dd{margin:0;min-width:0}
nav{border-block:1px solid var(--line);padding:8px 0;font-size:.9rem}
nav a{margin-right:16px;white-space:nowrap}
a{color:var(--accent)}
a:focus-visible,.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
section{padding:26px 0 14px;border-bottom:1px solid var(--line)}
figure{margin:14px 0 20px}
figcaption{font-weight:600;font-size:.95rem;margin-bottom:6px}
figcaption span{font-weight:400;color:var(--muted);margin-left:12px;white-space:nowrap}
figcaption i{display:inline-block;width:16px;height:0;border-top:3px solid var(--accent);margin-right:5px;
vertical-align:middle}
figcaption i.limit{border-top:2px dashed var(--limit)}
figure svg{display:block;width:100%;height:auto}
.narrow{display:none}
.scroll{overflow-x:auto;margin:0 0 18px}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:min(100%,420px)}
caption{text-align:left;font-weight:600;padding:0 0 6px}
th,td{padding:5px 14px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{color:var(--muted);font-weight:500;white-space:nowrap}
td{unicode-bidi:isolate}
.r{text-align:right;white-space:nowrap}
.l{white-space:nowrap}
.w{min-width:11em}
td.a{min-width:13em}
.more{color:var(--muted);font-size:.9rem}
.card{border:1px solid var(--line);border-left:4px solid var(--muted);border-radius:6px;padding:12px 14px;
margin:0 0 14px;break-inside:avoid}
.card.good{border-left-color:var(--good);color:inherit}.card.bad{border-left-color:var(--bad);color:inherit}
.card.warn{border-left-color:var(--warn);color:inherit}
.card p{color:var(--muted);font-size:.9rem}
.card h4,.card h3{unicode-bidi:isolate}
h4{font-size:.8rem;margin:10px 0 2px;color:var(--muted);font-weight:600}
pre{margin:0;padding:8px 10px;background:var(--panel);border-radius:4px;white-space:pre-wrap;overflow-wrap:anywhere;
unicode-bidi:isolate;font:.85rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
footer{color:var(--muted);font-size:.85rem;padding-top:18px;padding-bottom:40px}
@media (min-width:1000px){.beside{display:grid;grid-template-columns:1fr 1fr;gap:28px}
.pair{display:grid;grid-template-columns:minmax(0,720px) 1fr;gap:36px}.pair table{min-width:0}
.pair figure{margin-bottom:8px}.pair>div>.scroll{margin-top:14px}}
@media (max-width:640px){
header,main,footer{padding-left:14px;padding-right:14px}
.figures{grid-template-columns:1fr 1fr}
.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:6px}
.wide{display:none}.narrow{display:block}
.stack thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stack,.stack tbody,.stack tr,.stack td,.stack caption{display:block}
.stack tr{border-bottom:1px solid var(--line);padding:6px 0}
.stack td.w,.stack td.a,.stack td.r,.stack td.l{min-width:0;border:0;padding:1px 0;text-align:left;
white-space:normal;display:grid;grid-template-columns:7.5em 1fr;gap:8px}
.stack td::before{content:attr(data-head);color:var(--muted)}
}
@media print{
:root{color-scheme:light;--paper:#fff;--panel:#f4f5f6;--ink:#000;--muted:#444;--line:#bbb;--accent:#1d56b0;--limit:#6d35b3;
--good:#12663b;--bad:#a82723;--warn:#7a4c00}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{font-size:10.5pt}
header,main,footer{max-width:none;padding-left:0;padding-right:0}
nav{display:none}
.wide{display:block}.narrow{display:none}
.scroll{overflow:visible}
.beside,.pair{display:block}
h2,h3,h4,figcaption,caption{break-after:avoid}
figure,tr,.figures div{break-inside:avoid}
section{padding-top:14px}
section:last-child{border:0}
footer{padding:0}
@page{margin:16mm}
}
"""
