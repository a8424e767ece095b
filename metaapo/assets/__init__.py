"""What comes from a hub, a folder or a package: found, checked, fetched and converted."""
