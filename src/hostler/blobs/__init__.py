"""Where large things lie: a folder by default, S3 by URL.

Nothing in here knows which jobs refer to a blob, so nothing is deleted by itself. A blob whose job was never
submitted, or is no longer kept, is an orphan: harmless, found by comparing ages, removed by `delete` (for S3 by
a lifecycle rule of the bucket). Uploads that were cut off leave no blob; their temporary files are removed the
next time a store opens the folder, once they are a day old.
"""

from hostler.blobs.opening import open_blobs

__all__ = ["open_blobs"]
