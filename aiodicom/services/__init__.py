"""Services for a server to offer, made of handlers."""
