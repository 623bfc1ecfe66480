"""What is needed: protocols whose docstrings are promises. Adapters keep them, conformance classes test them."""
