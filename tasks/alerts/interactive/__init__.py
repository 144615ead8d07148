"""Buttons in Slack: who pressed what, whether they may, and the answer in the thread."""
