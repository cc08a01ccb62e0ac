//! The broker on the operating system's files, sockets and clocks.

use brokkr_env::tokio::{SocketBuffers, TokioEnv};

use crate::broker::{Broker, StartError};
use crate::config::BrokerConfig;

/// Threads for blocking IO on the log directory where `num.io.threads` isn't set.
const IO_THREADS: usize = 16;

/// A broker on the operating system.
pub type RealBroker = Broker<TokioEnv>;

/// Starts a broker on the operating system. Must be called on a tokio runtime.
pub async fn start(config: BrokerConfig) -> Result<RealBroker, StartError> {
    let io_threads = match config.set.get("num.io.threads") {
        Some(_) => usize::try_from(config.num_io_threads).unwrap_or(IO_THREADS),
        None => IO_THREADS,
    };
    // As in Kafka, -1 is the operating system's size. For the receive buffer that is the default here, because Kafka's 100
    // KiB cost a fifth of the throughput of large batches.
    let receive = config
        .set
        .get("socket.receive.buffer.bytes")
        .map(|_| config.socket_receive_buffer_bytes);
    let buffers = SocketBuffers {
        send: usize::try_from(config.socket_send_buffer_bytes).ok(),
        receive: receive.and_then(|bytes| usize::try_from(bytes).ok()),
    };
    Broker::start(TokioEnv::with_buffers(io_threads, buffers), config).await
}
