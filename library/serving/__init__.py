"""A small local server: a page to try the model in a browser, and a JSON endpoint."""
