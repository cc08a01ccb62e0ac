//! The contract of both worlds: one test suite, run on the real world here and on the simulated one in `sim/tests`.

use std::net::SocketAddr;
use std::time::Duration;

use brokkr_env::{Conn, Dir, Env, ErrorKind, Listener, Part, ReadHalf, WriteHalf};
use bytes::{Bytes, BytesMut};

/// Fault injection of a world.
pub trait Faults<E: Env> {
    /// Limits the directory to `bytes` more bytes (for one file: the file can't grow past that).
    fn limit(&self, bytes: u64);
    /// Removes the limit.
    fn unlimit(&self);
    /// A path in the directory whose next sync fails.
    fn path_that_fails_to_sync(&self) -> String;
}

fn filled(byte: u8, len: usize) -> Bytes {
    Bytes::from(vec![byte; len])
}

/// Operations on a file run in call order even if none is awaited; a proof covers the operations submitted before its sync.
pub async fn call_order<E: Env>(dir: &Dir<E>) {
    let file = dir.create("order").await.expect("a new file");
    let mut writes = Vec::new();
    for i in 0..50u8 {
        writes.push(file.write_at(u64::from(i) * 100, vec![filled(i, 60), filled(i, 40)]));
    }
    let sync = file.sync();
    let late = file.write_at(5000, vec![filled(50, 100)]);
    let read = file.read_at(4000, 1000);
    let durable = sync.await.expect("a sync");
    assert_eq!(
        (durable.len(), durable.file(), durable.truncations()),
        (5000, file.id(), 0)
    );
    let bytes = read.await.expect("what was submitted before it");
    assert!((40..50u8).all(|i| bytes[(usize::from(i) - 40) * 100..][..100] == filled(i, 100)));
    for w in writes {
        w.await.expect("a write");
    }
    late.await.expect("a write");
    let cut = file.truncate(1000);
    let again = file.write_at(1000, vec![filled(9, 10)]);
    cut.await.expect("a truncate");
    again.await.expect("a write behind it");
    let durable = file.sync().await.expect("a sync");
    assert_eq!((durable.len(), durable.truncations()), (1010, 1));
    assert_eq!(
        file.read_at(1000, 11).await.expect_err("past the end").kind(),
        ErrorKind::UnexpectedEof
    );
    assert_eq!(
        dir.create("order").await.expect_err("it exists").kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        dir.open("nothing").await.expect_err("it does not").kind(),
        ErrorKind::NotFound
    );
}

/// A write without space is cut back to the last good length and fails the operations queued after it. Writes succeed again
/// when there is space.
pub async fn no_space<E: Env>(dir: &Dir<E>, faults: &impl Faults<E>) {
    let file = dir.create("full").await.expect("a new file");
    file.write_at(0, vec![filled(1, 1000)]).await.expect("room");
    faults.limit(1500);
    let short = file.write_at(1000, vec![filled(2, 600), filled(3, 5000)]);
    let behind = file.write_at(6600, vec![filled(4, 100)]);
    let sync = file.sync();
    assert_eq!(short.await.expect_err("no room").kind(), ErrorKind::NoSpace);
    assert_eq!(
        behind.await.expect_err("one before it failed").kind(),
        ErrorKind::Preceding
    );
    // A sync queued before the failure fails with it; a later one covers the remaining bytes.
    match sync.await {
        Ok(proof) => assert_eq!(proof.len(), 1000),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Preceding),
    }
    assert_eq!(file.len(), 1000);
    assert_eq!(file.read_at(0, 1000).await.expect("reads go on"), filled(1, 1000));
    assert_eq!(
        file.read_at(1000, 1).await.expect_err("it was cut back").kind(),
        ErrorKind::UnexpectedEof
    );
    faults.unlimit();
    file.write_at(1000, vec![filled(5, 5000)])
        .await
        .expect("room again");
    assert_eq!(file.sync().await.expect("not poisoned").len(), 6000);
    assert!(dir.poisoned().is_none());
}

/// A failed sync poisons the whole directory for writing; reads go on.
pub async fn poison<E: Env>(dir: &Dir<E>, faults: &impl Faults<E>) {
    let other = dir.create("other").await.expect("a new file");
    other.write_at(0, vec![filled(1, 10)]).await.expect("room");
    let path = faults.path_that_fails_to_sync();
    let file = dir.open_or_create(&path).await.expect("a file");
    assert!(file.sync().await.is_err());
    for f in [&file, &other] {
        assert_eq!(f.sync().await.expect_err("poisoned").kind(), ErrorKind::Poisoned);
        assert_eq!(
            f.write_at(0, vec![filled(2, 1)])
                .await
                .expect_err("poisoned")
                .kind(),
            ErrorKind::Poisoned
        );
        assert_eq!(
            f.truncate(0).await.expect_err("poisoned").kind(),
            ErrorKind::Poisoned
        );
    }
    assert_eq!(
        dir.create("new").await.expect_err("poisoned").kind(),
        ErrorKind::Poisoned
    );
    assert_eq!(other.read_at(0, 10).await.expect("reads go on"), filled(1, 10));
}

/// A file is replaced whole.
pub async fn replace<E: Env>(dir: &Dir<E>) {
    dir.create_dir("sub").await.expect("a directory");
    dir.sync_dir("").await.expect("a sync");
    for text in ["one", "two, and longer", "3"] {
        dir.replace("sub/it", Bytes::from_static(text.as_bytes()))
            .await
            .expect("a replace");
        assert_eq!(
            dir.read("sub/it", 100).await.expect("it is there"),
            text.as_bytes()
        );
    }
    assert_eq!(
        dir.read("sub/it", 0)
            .await
            .expect_err("larger than allowed")
            .kind(),
        ErrorKind::Io
    );
    let names: Vec<String> = dir
        .list("sub")
        .await
        .expect("a list")
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, ["it"], "no scratch file is left");
}

/// A second lock of the same directory fails.
pub async fn lock<E: Env>(env: &E, path: &str, dir: &Dir<E>) {
    dir.lock().await.expect("it is free");
    let second = env.open_dir(path).await.expect("it exists");
    assert_eq!(
        second.lock().await.expect_err("it is taken").kind(),
        ErrorKind::InUse
    );
}

async fn pair<E: Env>(env: &E, listen: SocketAddr) -> (E::Conn, E::Conn) {
    let mut listener = env.listen(listen).await.expect("a port");
    let addr = listener.local_addr();
    let other = env.clone();
    let (tx, rx) = tokio::sync::oneshot::channel();
    env.spawn("connect", async move {
        let conn = other
            .connect(&addr.ip().to_string(), addr.port())
            .await
            .expect("a connection");
        assert!(tx.send(conn).is_ok());
    });
    let (theirs, _) = listener.accept().await.expect("a connection");
    (rx.await.expect("it was sent"), theirs)
}

/// A range is sent unchanged while the file grows; a truncate of it waits until it was sent.
pub async fn ranges<E: Env>(env: &E, dir: &Dir<E>, listen: SocketAddr) {
    // More bytes than the socket buffers hold, so that the range is not sent before the peer reads.
    const LEN: usize = 24 << 20;
    let file = dir.create("range").await.expect("a new file");
    let body: Vec<u8> = (0..LEN).map(|i| (i / 1000) as u8).collect();
    file.write_at(0, vec![Bytes::from(body.clone())])
        .await
        .expect("room");
    let (a, b) = pair(env, listen).await;
    let (mut read, _keep_a) = a.split();
    let (_keep_b, mut write) = b.split();
    let part = file.range(0, LEN as u32);
    let grows = file.write_at(LEN as u64, vec![filled(7, 1000)]);
    let cut = file.truncate(10);
    let head = Bytes::from_static(b"head");
    let sender = env.spawn("sender", async move {
        write
            .write(vec![Part::Bytes(head), Part::Range(part)])
            .await
            .expect("it is read");
    });
    grows.await.expect("a file grows while a range of it leaves");
    assert_eq!(file.len(), 10, "the truncate was submitted");
    let mut buf = BytesMut::with_capacity(LEN + 100);
    while buf.len() < LEN + 4 {
        assert_ne!(read.read(&mut buf).await.expect("bytes"), 0);
    }
    assert!(
        buf[..4] == *b"head" && buf[4..] == body[..],
        "the range left whole"
    );
    sender.await;
    cut.await.expect("a truncate, once the range has left");
    assert_eq!(file.read_at(0, 10).await.expect("what is left"), &body[..10]);
}

/// Cancelled reads lose no bytes.
pub async fn cancelled_reads<E: Env>(env: &E, listen: SocketAddr) {
    const PIECES: u32 = 200;
    let (a, b) = pair(env, listen).await;
    let (mut read, _keep) = a.split();
    let other = env.clone();
    env.spawn("writer", async move {
        let (_keep, mut write) = b.split();
        for i in 0..PIECES {
            let piece = Bytes::copy_from_slice(&i.to_be_bytes());
            write.write(vec![Part::Bytes(piece)]).await.expect("it is read");
            other.sleep_until(other.now() + Duration::from_micros(300)).await;
        }
    });
    let (mut all, mut given_up) = (BytesMut::new(), 0);
    loop {
        let mut buf = BytesMut::with_capacity(64);
        tokio::select! {
            biased;
            n = read.read(&mut buf) => match n.expect("bytes") {
                0 => break,
                n => all.extend_from_slice(&buf[..n]),
            },
            () = env.sleep_until(env.now() + Duration::from_micros(100)) => given_up += 1,
        }
    }
    let sent: Vec<u8> = (0..PIECES).flat_map(u32::to_be_bytes).collect();
    assert_eq!(all, sent);
    assert!(given_up > 10, "reads were given up {given_up} times");
}
