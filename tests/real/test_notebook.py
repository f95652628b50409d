"""The notebook runs top to bottom in a real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from real import needs

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

NOTEBOOK = Path(__file__).parents[2] / "jobs" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore")  # Those of the kernel's own packages.
def test_it_runs_to_its_last_cell(tmp_path):
    needs.package("nbclient", "pip install 'batchrunner[real]'")
    needs.package("ipykernel", "pip install 'batchrunner[real]'")
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert (tmp_path / "runs" / "notebook.simulated" / "results.parquet").exists()
    assert cells[4].outputs[0]["data"]["text/plain"] == "20"
    assert "out_label" in cells[5].outputs[0]["data"]["text/plain"]
