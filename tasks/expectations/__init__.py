"""The policy as a Great Expectations suite, and its validation.

Import from the modules: ``compile`` turns a policy into rules, ``validate`` lets Great
Expectations check them and keeps the result and the Data Docs as evidence.
"""
