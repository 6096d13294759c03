"""Power cuts on real filesystems.

Ext4 and XFS, shut down in the middle of the work, mounted again and recovered.

`python -m chaos.block_device` needs root, loop devices, and mkfs.ext4 and mkfs.xfs.
"""
