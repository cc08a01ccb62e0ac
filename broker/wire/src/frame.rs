//! Frames: what stands between two lengths on a connection.
//!
//! ```text
//!   request    size:i32 | api_key:i16 api_version:i16 correlation_id:i32 client_id:string? [tags] | body
//!   response   size:i32 | correlation_id:i32 [tags] | body
//! ```
//!
//! `size` counts what follows it. The tags are there in the header versions 2 (requests) and 1 (responses).

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::codec::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind, Part, Reader, Str, Writer};
use crate::messages::{Message, Request, RequestHeader, ResponseHeader};

/// What each request header begins with, whatever its version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestPeek {
    /// Which request; maybe one that doesn't exist.
    pub api_key: i16,
    /// In which version; maybe one that doesn't exist.
    pub api_version: i16,
    /// What the response must repeat.
    pub correlation_id: i32,
}

/// The beginning of a request frame (without its size), which stays the same for ever.
pub fn request_header_peek(frame: &Bytes) -> Result<RequestPeek, DecodeError> {
    peek(&mut Reader::new(frame.clone()))
}

fn peek(r: &mut Reader) -> Result<RequestPeek, DecodeError> {
    r.begin(RequestHeader::NAME, 0, 0..=0)?;
    Ok(RequestPeek {
        api_key: r.i16("RequestHeader.request_api_key")?,
        api_version: r.i16("RequestHeader.request_api_version")?,
        correlation_id: r.i32("RequestHeader.correlation_id")?,
    })
}

/// Reads a request's header, whose version follows from the API key and version in it. The body comes next. An API version
/// that doesn't exist is no error here: an ApiVersions request in one has to be answered.
pub fn decode_request_header(r: &mut Reader) -> Result<(ApiKey, RequestHeader), DecodeError> {
    let peek = peek(&mut r.clone())?;
    let Some(api_key) = ApiKey::from_i16(peek.api_key) else {
        return Err(DecodeError::new(
            RequestHeader::NAME,
            "RequestHeader.request_api_key",
            r.offset(),
            DecodeErrorKind::UnknownApiKey(peek.api_key),
        ));
    };
    let header = RequestHeader::decode(r, api_key.request_header_version(peek.api_version))?;
    Ok((api_key, header))
}

/// Reads the header of a response to a request of this key and version. The body comes next.
pub fn decode_response_header(
    r: &mut Reader,
    api_key: ApiKey,
    api_version: i16,
) -> Result<ResponseHeader, DecodeError> {
    ResponseHeader::decode(r, api_key.response_header_version(api_version))
}

/// A request's frame, its size included.
pub fn encode_request<R: Request>(
    request: &R,
    api_version: i16,
    correlation_id: i32,
    client_id: Option<&Str>,
) -> Result<Vec<Part>, EncodeError> {
    let header = RequestHeader {
        request_api_key: R::API_KEY as i16,
        request_api_version: api_version,
        correlation_id,
        client_id: client_id.cloned(),
        ..RequestHeader::default()
    };
    encode_frame(
        &header,
        R::API_KEY.request_header_version(api_version),
        request,
        api_version,
    )
}

/// A response's frame, its size included. `api_key` and `api_version` are the request's. (The body may be of another
/// version: an ApiVersions request in a version that doesn't exist is answered in version 0, and its header is 0 always.)
pub fn encode_response<M: Message>(
    response: &M,
    api_key: ApiKey,
    api_version: i16,
    correlation_id: i32,
) -> Result<Vec<Part>, EncodeError> {
    let header = ResponseHeader {
        correlation_id,
        ..ResponseHeader::default()
    };
    encode_frame(
        &header,
        api_key.response_header_version(api_version),
        response,
        api_version,
    )
}

/// A header and a body after their size.
pub fn encode_frame<H: Message, M: Message>(
    header: &H,
    header_version: i16,
    body: &M,
    body_version: i16,
) -> Result<Vec<Part>, EncodeError> {
    encode_frame_within(128, header, header_version, body, body_version)
}

/// As [`encode_frame`], for a frame of about `capacity` bytes: a large one that doesn't grow is never there twice.
pub fn encode_frame_within<H: Message, M: Message>(
    capacity: usize,
    header: &H,
    header_version: i16,
    body: &M,
    body_version: i16,
) -> Result<Vec<Part>, EncodeError> {
    let mut w = Writer::with_capacity(capacity);
    w.i32(0);
    header.encode(&mut w, header_version)?;
    body.encode(&mut w, body_version)?;
    let size = w.len() - 4;
    match i32::try_from(size) {
        Ok(size) => w.patch_i32(0, size),
        Err(_) => return Err(EncodeError::new(M::NAME, "", EncodeErrorKind::TooLong(size))),
    }
    w.into_parts()
}
