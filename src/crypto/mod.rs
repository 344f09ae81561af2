//! Cryptography without IO: hashes, sealed values, signatures and passwords. Time and randomness come in as
//! arguments; what a token means is decided in `protocol`.

pub mod api_key;
pub mod device_cookie;
pub mod digest;
pub mod gateway_cookie;
pub mod jws;
pub mod password;
pub mod pem;
pub mod refresh;
pub mod seal;
pub mod secret;
