//! The binary `brokkr`.

use tikv_jemallocator::Jemalloc;

/// glibc's allocator keeps freed memory of many connections in its arenas: under hostile connections it held a third more
/// memory than this one, and a small request cost a tenth more CPU time.
#[global_allocator]
static MEMORY: Jemalloc = Jemalloc;

/// Options that jemalloc reads at the start of the process: unused pages go back to the system after 200 ms, those of a
/// block of 4 MiB or more (a large frame, a decompressed batch) at once.
// SAFETY: jemalloc declares this name as a pointer to a string that ends with a zero byte, and so is this.
#[unsafe(export_name = "malloc_conf")]
static OPTIONS: &[u8; 63] = b"dirty_decay_ms:200,muzzy_decay_ms:0,oversize_threshold:4194304\0";

fn main() -> std::process::ExitCode {
    brokkr::production::main()
}
