//! Tests of a connection and a client against a scripted peer, on loopback.

use std::time::Duration;

use brokkr_client::client::{Client, ClientConfig, Peer};
use brokkr_client::{Connection, ConnectionConfig, Error};
use brokkr_env::tokio::{TcpConn, TcpListener, TcpReadHalf, TcpWriteHalf, TokioEnv};
use brokkr_env::{Conn, Env, Listener, Part, ReadHalf, WriteHalf};
use brokkr_wire::messages::api_versions_response::ApiVersion;
use brokkr_wire::messages::{
    ApiVersionsResponse, DescribeClusterRequest, DescribeClusterResponse, ListGroupsRequest,
};
use brokkr_wire::{ApiKey, ErrorCode, frame};
use bytes::{Bytes, BytesMut};

/// Longer than any step of these tests takes.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

struct Script {
    read: TcpReadHalf,
    write: TcpWriteHalf,
    buf: BytesMut,
}

impl Script {
    fn over(conn: TcpConn) -> Self {
        let (read, write) = conn.split();
        Self {
            read,
            write,
            buf: BytesMut::new(),
        }
    }

    /// The next request: key, version, correlation id. `None` after the client closed.
    async fn next(&mut self) -> Option<(ApiKey, i16, i32)> {
        loop {
            if let Some(size) = self.buf.first_chunk::<4>() {
                let len = 4 + i32::from_be_bytes(*size) as usize;
                if self.buf.len() >= len {
                    let request = self.buf.split_to(len).freeze().slice(4..);
                    let peek = frame::request_header_peek(&request).expect("a request");
                    let key = ApiKey::from_i16(peek.api_key).expect("a key");
                    return Some((key, peek.api_version, peek.correlation_id));
                }
            }
            self.buf.reserve(1024);
            if self.read.read(&mut self.buf).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, bytes: Bytes) {
        self.write
            .write(vec![Part::Bytes(bytes)])
            .await
            .expect("the client reads");
    }
}

/// A DescribeCluster response that contains the correlation id.
fn answer(correlation_id: i32) -> Bytes {
    let response = DescribeClusterResponse {
        controller_id: correlation_id,
        ..Default::default()
    };
    let parts = frame::encode_response(&response, ApiKey::DescribeCluster, 0, correlation_id);
    bytes_of(parts.expect("it can be encoded"))
}

fn bytes_of(parts: Vec<brokkr_wire::Part>) -> Bytes {
    let piece = |p: brokkr_wire::Part| match p {
        brokkr_wire::Part::Bytes(b) => b,
        brokkr_wire::Part::External { .. } => panic!("nothing is external"),
    };
    Bytes::from(parts.into_iter().map(piece).collect::<Vec<_>>().concat())
}

async fn listening(env: &TokioEnv) -> (TcpListener, u16) {
    let listener = env.listen("127.0.0.1:0".parse().expect("an address")).await;
    let listener = listener.expect("a port is free");
    let port = listener.local_addr().port();
    (listener, port)
}

async fn pair(env: &TokioEnv) -> (Connection<TokioEnv>, Script) {
    let (mut listener, port) = listening(env).await;
    let connection = Connection::open(env, "127.0.0.1", port, ConnectionConfig::default()).await;
    let (conn, _) = listener.accept().await.expect("the client connects");
    (connection.expect("the listener accepts"), Script::over(conn))
}

#[tokio::test]
async fn responses_match_their_requests_however_they_are_fragmented() {
    let env = TokioEnv::new(1);
    let (connection, mut peer) = pair(&env).await;
    let replies: Vec<_> = (0..3)
        .map(|_| connection.submit(DescribeClusterRequest::default(), 0, LONG))
        .collect();
    let mut all = BytesMut::new();
    for _ in 0..3 {
        let (_, _, id) = peer.next().await.expect("three requests were sent");
        all.extend_from_slice(&answer(id));
    }
    let env2 = env.clone();
    env.spawn("peer", async move {
        for piece in all.freeze().chunks(7) {
            peer.say(Bytes::copy_from_slice(piece)).await;
            env2.sleep_until(env2.now() + Duration::from_micros(200)).await;
        }
        assert_eq!(peer.next().await, None, "the client closes when it is dropped");
    });
    drop(connection);
    let mut ids = Vec::new();
    for reply in replies {
        ids.push(reply.await.expect("it was answered").controller_id);
    }
    assert_eq!(ids, [1, 2, 3]);
}

#[tokio::test]
async fn a_response_out_of_order_closes_the_connection() {
    let env = TokioEnv::new(1);
    let (connection, mut peer) = pair(&env).await;
    let first = connection.submit(DescribeClusterRequest::default(), 0, LONG);
    let second = connection.submit(DescribeClusterRequest::default(), 0, LONG);
    peer.next().await.expect("two requests were sent");
    let (_, _, id) = peer.next().await.expect("two requests were sent");
    peer.say(answer(id)).await;
    assert!(matches!(first.await, Err(Error::Protocol(_))));
    assert!(matches!(second.await, Err(Error::Protocol(_))));
    assert_eq!(peer.next().await, None);
}

#[tokio::test]
async fn a_timeout_closes_the_connection_and_later_requests_are_not_sent() {
    let env = TokioEnv::new(1);
    let (connection, mut peer) = pair(&env).await;
    let reply = connection.submit(DescribeClusterRequest::default(), 0, SHORT);
    assert_eq!(reply.await.err(), Some(Error::TimedOut));
    peer.next().await.expect("one request was sent");
    assert_eq!(peer.next().await, None);
    let after = connection
        .submit(DescribeClusterRequest::default(), 0, LONG)
        .await;
    assert!(matches!(after, Err(Error::NotSent(_))), "{after:?}");
}

#[tokio::test]
async fn an_invalid_response_closes_the_connection() {
    for size in [-1, 3, i32::MAX] {
        let env = TokioEnv::new(1);
        let (connection, mut peer) = pair(&env).await;
        let reply = connection.submit(DescribeClusterRequest::default(), 0, LONG);
        peer.next().await.expect("one request was sent");
        peer.say(Bytes::copy_from_slice(&i32::to_be_bytes(size))).await;
        assert!(matches!(reply.await, Err(Error::Protocol(_))), "{size}");
    }
}

#[tokio::test]
async fn a_disconnect_leaves_the_outcome_unknown() {
    let env = TokioEnv::new(1);
    let (connection, mut peer) = pair(&env).await;
    let reply = connection.submit(DescribeClusterRequest::default(), 0, LONG);
    peer.next().await.expect("one request was sent");
    drop(peer);
    assert!(matches!(reply.await, Err(Error::Lost(_))));
}

/// Answers ApiVersions as an older broker would, then at most one DescribeCluster, and disconnects.
async fn old_broker(mut peer: Script) {
    let (_, version, id) = peer.next().await.expect("the client requests ApiVersions first");
    assert_eq!(version, ApiKey::ApiVersions.max_stable());
    let knows = |key: ApiKey, max_version| ApiVersion {
        api_key: key as i16,
        max_version,
        ..Default::default()
    };
    let mut response = ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION.0,
        api_keys: vec![knows(ApiKey::ApiVersions, 2)],
        ..Default::default()
    };
    let refused = frame::encode_frame(
        &brokkr_wire::messages::ResponseHeader {
            correlation_id: id,
            ..Default::default()
        },
        0,
        &response,
        0,
    );
    peer.say(bytes_of(refused.expect("it can be encoded"))).await;
    let (_, version, id) = peer.next().await.expect("the client requests ApiVersions again");
    assert_eq!(version, 2);
    response.error_code = 0;
    response.api_keys.push(knows(ApiKey::DescribeCluster, 0));
    let encoded = frame::encode_response(&response, ApiKey::ApiVersions, 2, id);
    peer.say(bytes_of(encoded.expect("it can be encoded"))).await;
    if let Some((key, version, id)) = peer.next().await {
        assert_eq!((key, version), (ApiKey::DescribeCluster, 0));
        peer.say(answer(id)).await;
    }
}

#[tokio::test]
async fn a_client_uses_the_brokers_versions_and_reconnects() {
    let env = TokioEnv::new(1);
    let (mut listener, port) = listening(&env).await;
    env.spawn("peer", async move {
        loop {
            let (conn, _) = listener.accept().await.expect("the client connects");
            old_broker(Script::over(conn)).await;
        }
    });
    let client = Client::new(&env, ClientConfig::new("127.0.0.1", port));
    let mut answers = 0;
    while answers < 3 {
        let result = client
            .ask(Peer::Bootstrap(0), DescribeClusterRequest::default())
            .await;
        match result {
            Ok(_) => answers += 1,
            // The peer disconnected before the client noticed.
            Err(e) => assert!(e.is_retriable(), "{e}"),
        }
    }
    let mut result = Ok(());
    while result.as_ref().err().is_none_or(Error::is_retriable) {
        let response = client.ask(Peer::Bootstrap(0), ListGroupsRequest::default());
        result = response.await.map(drop);
    }
    assert_eq!(result, Err(Error::UnsupportedVersion(ApiKey::ListGroups)));
}
