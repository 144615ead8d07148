"""tasks/inputs."""
