//! Every bound of this crate: its unit last in the name, its reason beside it. All that comes from a registry, a file of
//! an image or another member is read within these.

/// Bytes of a whole reference. Docker allows 255 for the name alone; a tag and a digest come to it.
pub const REFERENCE_BYTES_MAX: usize = 512;
/// Bytes of registry and repository together, as Docker has it.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a tag, as the distribution specification has it.
pub const TAG_BYTES_MAX: usize = 128;

/// Bytes of an index or a manifest. Registries take 4 MiB.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Bytes of an image's configuration.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Layers of an image: Docker's own bound. Overlayfs takes 500 where they are mounted by short names.
pub const LAYERS_MAX: usize = 127;
/// Manifests that an index names. Images for every platform have some dozens.
pub const INDEX_MANIFESTS_MAX: usize = 1_024;
/// Indexes inside of each other: the layout's, the image's, and one more.
pub const INDEX_DEPTH_MAX: usize = 3;
/// Entries of a configuration's history: layers, and steps that made none.
pub const HISTORY_MAX: usize = 4_096;
/// Variables, arguments, ports, volumes or labels of a configuration, of each.
pub const CONFIG_ITEMS_MAX: usize = 4_096;

/// Entries of an archive of an image: four of each layer in the oldest form, for dozens of images.
pub const ARCHIVE_ENTRIES_MAX: usize = 65_536;
/// Bytes of JSON that an archive may make us keep in memory while it goes by.
pub const ARCHIVE_JSON_BYTES_MAX: u64 = 32 << 20;
/// Images in an archive, and names of one.
pub const ARCHIVE_IMAGES_MAX: usize = 1_024;
/// Bytes of an archive when it is decompressed.
pub const ARCHIVE_BYTES_MAX: u64 = 1 << 40;
/// Links of an archive that are followed from one to the next.
pub const ARCHIVE_LINKS_MAX: usize = 8;

/// Bytes of a layer as it travels, and of what it is when it is decompressed.
pub const LAYER_BYTES_MAX: u64 = 64 << 30;
/// Files, folders and links of a layer.
pub const LAYER_ENTRIES_MAX: u64 = 1_000_000;
/// Decompressed bytes for each compressed one. Text comes to 20, and deflate ends at 1,032.
pub const LAYER_RATIO_MAX: u64 = 200;
/// Decompressed bytes that no ratio is asked of: a few zeros compress better than any bomb.
pub const LAYER_RATIO_FREE_BYTES: u64 = 16 << 20;
/// Logarithm of the memory that a zstd layer may ask its reader for: 128 MiB, what `zstd --ultra` needs.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bytes of a path in a layer, and of what a symbolic link points to: `PATH_MAX` without its zero.
pub const PATH_BYTES_MAX: usize = 4_095;
/// Bytes of one name in a path: `NAME_MAX`.
pub const NAME_COMPONENT_BYTES_MAX: usize = 255;
/// Names in a path. Real trees end at some dozens.
pub const PATH_COMPONENTS_MAX: usize = 256;
/// Bytes of an extended header of an archive: a path, and the attributes of one file.
pub const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an extended attribute's value, as the kernel has it.
pub const XATTR_BYTES_MAX: usize = 64 << 10;
/// Bytes of all paths whose times are set at the end: 600,000 folders of usual length.
pub const FOLDER_PATHS_BYTES_MAX: usize = 64 << 20;
/// Warnings about one layer that are kept; the rest is counted.
pub const WARNINGS_MAX: usize = 64;

/// Bytes of an image's `/etc/passwd` or `/etc/group`.
pub const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;
/// Groups of one user.
pub const GROUPS_MAX: usize = 1_024;
