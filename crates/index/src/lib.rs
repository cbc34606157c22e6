//! One shard of the ad index: exact scan and DiskANN behind one type.
