//! The disk keeps, loses and invents bytes as its model says.

use super::*;

fn with_file() -> (Disk, InodeId) {
    let mut disk = Disk::new(1);
    disk.create_dir("a").expect("a directory");
    disk.sync_dir("").expect("a sync");
    let (id, _) = disk.open("a/f", true).expect("a file");
    disk.sync_dir("a").expect("a sync");
    (disk, id)
}

#[test]
fn synced_bytes_survive_every_power_loss() {
    for seed in 0..50 {
        let (mut disk, id) = with_file();
        disk.write(id, 0, &Bytes::from(vec![7; 3000])).expect("room");
        let mark = disk.sync_begin();
        disk.write(id, 3000, &Bytes::from(vec![8; 3000])).expect("room");
        disk.sync_end(id, mark, &mut Keyed::new(1)).expect("a sync");
        disk.power_loss(&mut Keyed::new(seed));
        let id = disk.file("a/f").expect("its name was synced");
        assert_eq!(disk.read(id, 0, 3000).expect("it can be read"), vec![7; 3000]);
    }
}

#[test]
fn an_unsynced_write_is_kept_lost_torn_or_zeroed() {
    let (mut whole, mut shorter, mut torn, mut zeros, mut nameless) = (0, 0, 0, 0, 0);
    for seed in 0..200 {
        let (mut disk, id) = with_file();
        disk.write(id, 0, &Bytes::from(vec![7; 4096])).expect("room");
        disk.rename("a/f", "a/g").expect("a rename");
        disk.power_loss(&mut Keyed::new(seed));
        let Some(id) = disk.file("a/g") else {
            nameless += 1;
            assert!(disk.file("a/f").is_some(), "an undone rename leaves the old name");
            continue;
        };
        let left = disk.read(id, 0, 4096).expect("it can be read");
        let sevens = left.iter().filter(|b| **b == 7).count();
        match (left.len(), sevens) {
            (4096, 4096) => whole += 1,
            (0, 0) => shorter += 1,
            (4096, 0) => zeros += 1,
            _ => torn += 1,
        }
    }
    assert!(
        [whole, shorter, torn, zeros, nameless].iter().all(|n| *n > 5),
        "{whole} {shorter} {torn} {zeros}"
    );
}

#[test]
fn an_unsynced_truncate_may_be_undone() {
    let mut undone = 0;
    for seed in 0..100 {
        let (mut disk, id) = with_file();
        disk.write(id, 0, &Bytes::from(vec![7; 1000])).expect("room");
        let mark = disk.sync_begin();
        disk.sync_end(id, mark, &mut Keyed::new(1)).expect("a sync");
        disk.truncate(id, 100);
        disk.power_loss(&mut Keyed::new(seed));
        undone += u32::from(disk.len(id) == 1000);
        assert!(matches!(disk.len(id), 100 | 1000));
    }
    assert!((20..80).contains(&undone), "{undone}");
}

#[test]
fn a_name_is_durable_once_its_directory_is_synced() {
    let (mut disk, id) = with_file();
    assert_eq!(disk.file_durable("a/f"), Some(id));
    disk.rename("a/f", "a/g").expect("a rename");
    assert_eq!((disk.file_durable("a/f"), disk.file("a/f")), (Some(id), None));
    disk.sync_dir("a").expect("a sync");
    assert_eq!(
        (disk.file_durable("a/f"), disk.file_durable("a/g")),
        (None, Some(id))
    );
}

#[test]
fn a_full_disk_writes_the_part_that_fits() {
    let (mut disk, id) = with_file();
    disk.capacity = 1000;
    let (error, extent_known) = disk
        .write(id, 0, &Bytes::from(vec![1; 1500]))
        .expect_err("no room");
    assert_eq!(
        (error.kind(), extent_known, disk.len(id)),
        (ErrorKind::NoSpace, true, 1000)
    );
    disk.truncate(id, 0);
    assert_eq!(disk.space(), (1000, 1000));
}

#[test]
fn a_failed_write_has_an_unknown_extent() {
    let (mut disk, id) = with_file();
    disk.write(id, 0, &Bytes::from(vec![1; 1000])).expect("room");
    disk.failing_writes = 1;
    let (error, extent_known) = disk
        .write(id, 1000, &Bytes::from(vec![2; 1000]))
        .expect_err("it was to fail");
    assert_eq!((error.kind(), extent_known), (ErrorKind::Io, false));
    let left = disk.read(id, 1000, 1000).expect("it can be read");
    assert!((1..1000).contains(&left.len()) && left.iter().all(|b| *b == 2));
    assert_eq!(disk.fault_counts.get("write failed"), Some(&1));
    disk.write(id, 1000, &Bytes::from(vec![3; 1000]))
        .expect("only one was to fail");
    assert_eq!(disk.read(id, 1000, 1000).expect("it can be read"), vec![3; 1000]);
}

#[test]
fn changes_of_a_failed_sync_are_not_covered_by_later_syncs() {
    let (mut gone, mut kept) = (0, 0);
    for seed in 0..100 {
        let (mut disk, id) = with_file();
        let mut choices = Keyed::new(seed);
        disk.write(id, 0, &Bytes::from(vec![7; 512])).expect("room");
        disk.failing_syncs = 1;
        let mark = disk.sync_begin();
        disk.sync_end(id, mark, &mut choices).expect_err("it was to fail");
        // The node sees its page, and a sync has nothing left to do.
        assert_eq!(disk.read(id, 0, 512).expect("it can be read"), vec![7; 512]);
        let mark = disk.sync_begin();
        disk.sync_end(id, mark, &mut choices)
            .expect("only one was to fail");
        disk.power_loss(&mut choices);
        if disk.read(id, 0, 512).expect("it can be read") == vec![7; 512] {
            kept += 1;
        } else {
            gone += 1;
        }
    }
    assert!(gone > 20 && kept > 20, "{gone} gone, {kept} kept");
}

#[test]
fn bytes_rewritten_after_a_failed_sync_become_durable() {
    for seed in 0..50 {
        let (mut disk, id) = with_file();
        let mut choices = Keyed::new(seed);
        disk.write(id, 0, &Bytes::from(vec![7; 2048])).expect("room");
        disk.failing_syncs = 1;
        let mark = disk.sync_begin();
        disk.sync_end(id, mark, &mut choices).expect_err("it was to fail");
        disk.write(id, 0, &Bytes::from(vec![7; 1024])).expect("room");
        let mark = disk.sync_begin();
        disk.sync_end(id, mark, &mut choices).expect("a sync");
        disk.power_loss(&mut choices);
        assert_eq!(disk.read(id, 0, 1024).expect("it can be read"), vec![7; 1024]);
    }
}

#[test]
fn an_unreachable_file_is_freed() {
    let (mut disk, id) = with_file();
    disk.write(id, 0, &Bytes::from(vec![7; 1000])).expect("room");
    disk.remove("a/f", false).expect("it is there");
    disk.sync_dir("a").expect("a sync");
    // A handle still reads it.
    assert_eq!((disk.len(id), disk.used()), (1000, 1000));
    disk.close(id);
    assert_eq!((disk.len(id), disk.used()), (0, 0));

    let (mut disk, id) = with_file();
    disk.write(id, 0, &Bytes::from(vec![7; 1000])).expect("room");
    disk.close(id);
    disk.remove("a/f", false).expect("it is there");
    // A power loss could bring the name back.
    assert_eq!(disk.used(), 1000);
    disk.sync_dir("a").expect("a sync");
    assert_eq!(disk.used(), 0);
}

#[test]
fn log_writes_are_unsynced_until_a_sync() {
    let mut disk = Disk::new(1);
    let (log, _) = disk.open("00000000000000000000.log", true).expect("a file");
    let (index, _) = disk.open("00000000000000000000.index", true).expect("a file");
    disk.write(index, 0, &Bytes::from_static(b"x")).expect("room");
    assert_eq!(disk.log_unsynced_bytes(), 0, "an index is never synced");
    for bytes in [&b"xy"[..], b"z"] {
        disk.write(log, 0, &Bytes::from_static(bytes)).expect("room");
        assert_eq!(disk.log_unsynced_bytes(), 2, "the longest counts");
    }
    let mark = disk.sync_begin();
    disk.sync_end(log, mark, &mut Keyed::new(1)).expect("a sync");
    assert_eq!(disk.log_unsynced_bytes(), 0);
}

/// A file of two durable sectors, damaged.
fn damaged(seed: u64, how: Damage) -> (Disk, InodeId) {
    let (mut disk, id) = with_file();
    disk.write(id, 0, &Bytes::from(vec![7; 1024])).expect("room");
    let mark = disk.sync_begin();
    disk.sync_end(id, mark, &mut Keyed::new(1)).expect("a sync");
    assert!(disk.damage(id, how, &mut Keyed::new(seed)));
    (disk, id)
}

#[test]
fn bytes_that_are_not_durable_are_not_damaged() {
    let (mut disk, id) = with_file();
    disk.write(id, 0, &Bytes::from(vec![7; 1024])).expect("room");
    assert!(!disk.damage(id, Damage::BitRot, &mut Keyed::new(1)));
    assert_eq!(disk.read(id, 0, 1024).expect("it can be read"), vec![7; 1024]);
}

#[test]
fn bit_rot_is_permanent() {
    for seed in 0..10 {
        let (mut disk, id) = damaged(seed, Damage::BitRot);
        for _ in 0..2 {
            let bytes = disk.read(id, 0, 1024).expect("it can be read");
            let flipped: u32 = bytes.iter().map(|b| (b ^ 7).count_ones()).sum();
            assert_eq!(flipped, 1);
            disk.power_loss(&mut Keyed::new(1));
        }
    }
}

#[test]
fn an_unreadable_sector_is_readable_after_a_rewrite() {
    for seed in 0..10 {
        let (mut disk, id) = damaged(seed, Damage::Unreadable);
        disk.power_loss(&mut Keyed::new(1));
        let fails = |disk: &mut Disk, at| disk.read(id, at, 512).is_err();
        let bad = if fails(&mut disk, 0) { 0 } else { 512 };
        assert!(fails(&mut disk, bad) && !fails(&mut disk, 512 - bad));
        assert!(disk.read(id, 0, 1024).is_err(), "all or nothing");
        disk.write(id, bad, &Bytes::from(vec![8; 100])).expect("room");
        assert!(fails(&mut disk, bad), "not all of it was written");
        disk.write(id, bad, &Bytes::from(vec![8; 512])).expect("room");
        assert_eq!(disk.read(id, bad, 512).expect("it can be read"), vec![8; 512]);
    }
}

#[test]
fn a_misdirected_write_seems_fine_until_a_power_loss() {
    for (how, first) in [(Damage::LostWrite, 7), (Damage::MisdirectedWrite, 9)] {
        let (mut disk, id) = damaged(1, how);
        disk.write(id, 1024, &Bytes::from(vec![9; 512])).expect("room");
        disk.write(id, 1536, &Bytes::from(vec![9; 512])).expect("room");
        let mark = disk.sync_begin();
        disk.sync_end(id, mark, &mut Keyed::new(1)).expect("a sync");
        assert_eq!(disk.read(id, 1024, 1024).expect("it can be read"), vec![9; 1024]);
        disk.power_loss(&mut Keyed::new(1));
        assert_eq!(disk.len(id), 2048);
        assert_eq!(disk.read(id, 0, 512).expect("it can be read"), vec![first; 512]);
        assert_eq!(disk.read(id, 512, 512).expect("it can be read"), vec![7; 512]);
        assert_eq!(disk.read(id, 1024, 512).expect("it can be read"), vec![0; 512]);
        assert_eq!(disk.read(id, 1536, 512).expect("it can be read"), vec![9; 512]);
        assert_eq!(
            disk.fault_counts.get(how.name()),
            Some(&1),
            "only the next one does"
        );
    }
}

#[test]
fn trailing_zeros_take_no_memory_and_read_as_bytes() {
    let mut disk = Disk::new(1);
    let (file, _) = disk.open("00000000000000000000.log", true).expect("a file");
    let write = |disk: &mut Disk, at: u64, bytes: &[u8]| {
        disk.write(file, at, &Bytes::copy_from_slice(bytes))
            .expect("room");
        let mark = disk.sync_begin();
        disk.sync_end(file, mark, &mut Keyed::new(1)).expect("a sync");
    };
    write(&mut disk, 0, b"ab");
    write(&mut disk, 2, &[0; 5000]);
    assert_eq!((disk.len(file), disk.used()), (5002, 5002));
    let read = |disk: &mut Disk, at, len| disk.read(file, at, len).expect("it can be read").to_vec();
    assert_eq!(read(&mut disk, 1, 3), b"b\0\0");
    assert_eq!(read(&mut disk, 5000, 10), b"\0\0");
    assert_eq!(disk.peek(file), disk.peek_durable(file));
    assert_eq!(disk.peek(file).len(), 5002);
    write(&mut disk, 4000, b"c");
    assert_eq!(read(&mut disk, 3999, 3), b"\0c\0");
    disk.truncate(file, 4500);
    write(&mut disk, 4500, b"d");
    assert_eq!(read(&mut disk, 4499, 9), b"\0d");
    // A bit may flip in the zeros, too.
    write(&mut disk, 4501, &[0; 100_000]);
    assert!(disk.damage(file, Damage::BitRot, &mut Keyed::new(3)));
    let ones = |bytes: &[u8]| bytes.iter().map(|b| b.count_ones()).sum::<u32>();
    let before = ones(b"abcd");
    assert_eq!(ones(&disk.peek(file)).abs_diff(before), 1);
    assert_eq!(disk.peek(file), disk.peek_durable(file));
    disk.power_loss(&mut Keyed::new(1));
    assert_eq!((disk.len(file), disk.used()), (104_501, 104_501));
}
