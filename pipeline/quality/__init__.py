"""Statistics on records, pure: nothing here reads a camera, a model or a file."""
