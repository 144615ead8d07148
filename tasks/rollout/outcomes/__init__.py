"""What live traffic got, by mix: counts from logs, databases, metrics, proxies and help desks."""
