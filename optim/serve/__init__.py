"""A bundle behind HTTP: `python -m optim.serve results/<run_id>`. Needs the extra `serve` (Starlette and Uvicorn)."""
