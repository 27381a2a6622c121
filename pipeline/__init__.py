"""Lineguard: a defect-inspection station that can prove its verdicts."""
