"""What each policy changes on drafts: one file for each policy.

`apply…` functions return what they could not do, as reasons for the policy's status; the rest of the policy holds.
Never here: which policy wins (`snapshot.topology`).
"""
