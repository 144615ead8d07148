"""The flows: one file a DAG that people run, and the command in front of them."""
