"""Synthetic bare boards: drawn, damaged, photographed and carried past a camera."""
