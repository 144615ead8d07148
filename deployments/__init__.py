"""What runs imagegate for a team: deployments, automations, containers, and the files they read."""
