//! Frames: the size-prefixed units of a connection.
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

/// The fields that start every request header, in all versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestPeek {
    /// The API key; may be unknown.
    pub api_key: i16,
    /// The API version; may be unknown.
    pub api_version: i16,
    /// The id that the response must repeat.
    pub correlation_id: i32,
}

/// Decodes the start of a request frame (without its size), which is the same in all versions.
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

/// Decodes a request header, whose version follows from its API key and API version. The body follows. An unknown API
/// version is not an error here: an ApiVersions request must be answered in any version.
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

/// Decodes the header of a response to a request with this key and version. The body follows.
pub fn decode_response_header(
    r: &mut Reader,
    api_key: ApiKey,
    api_version: i16,
) -> Result<ResponseHeader, DecodeError> {
    ResponseHeader::decode(r, api_key.response_header_version(api_version))
}

/// Encodes a request frame, including its size.
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

/// Encodes a response frame, including its size. `api_key` and `api_version` are the request's. (The body's version may
/// differ: an ApiVersions request in an unknown version is answered in version 0; its header version is always 0.)
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

/// Encodes size, header and body.
pub fn encode_frame<H: Message, M: Message>(
    header: &H,
    header_version: i16,
    body: &M,
    body_version: i16,
) -> Result<Vec<Part>, EncodeError> {
    encode_frame_within(128, header, header_version, body, body_version)
}

/// As [`encode_frame`], with the expected length `capacity`: a large frame whose buffer doesn't grow is never in memory
/// twice.
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
