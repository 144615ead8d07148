"""The harness: cases go through a mix over HTTP; money, attempts and pictures are recorded."""
