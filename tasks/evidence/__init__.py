"""Evidence: what a run leaves behind, sealed by digest, and the report that people look at."""
