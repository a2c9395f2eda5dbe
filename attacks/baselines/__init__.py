"""What is known without reading anything secret, and what is known by reading it in clear: floor and ceiling."""
