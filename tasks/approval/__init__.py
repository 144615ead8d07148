"""A person's word before production changes: who is asked, who may answer, and the answer."""
