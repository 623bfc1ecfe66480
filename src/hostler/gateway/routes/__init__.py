"""The routes, one module for each thing that people speak of."""
