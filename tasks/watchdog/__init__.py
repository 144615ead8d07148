"""The watch over the gate itself: dead runs, missed schedules, alerts that people did not get.

``facts`` reads, ``check`` decides, ``act`` tells and mends, ``loop`` repeats.
"""
