"""Our numbers against those of the published code, recorded in tests/golden or the folder KAIZEN_GOLDEN_DIR names."""
