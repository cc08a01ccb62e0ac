//! The binary `brokkr`.

use tikv_jemallocator::Jemalloc;

/// glibc's allocator keeps in its arenas what many connections gave back: under hostile ones it held a third more memory than this one,
/// and a small request cost a tenth more CPU time.
#[global_allocator]
static MEMORY: Jemalloc = Jemalloc;

/// What jemalloc reads when the process begins: pages that nobody uses go back to the system after a fifth of a second, those of a block
/// of 4 MiB or more (a large frame, what a batch decompressed to) at once.
// SAFETY: jemalloc declares this name as a pointer to a string that ends with a zero byte, and so is this.
#[unsafe(export_name = "malloc_conf")]
static OPTIONS: &[u8; 63] = b"dirty_decay_ms:200,muzzy_decay_ms:0,oversize_threshold:4194304\0";

fn main() -> std::process::ExitCode {
    brokkr::production::main()
}
