//! JSON.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{FromPayload, PayloadError, ToPayload};

/// A value in JSON, through its `serde` form. It can be taken apart in a handler's arguments: `|Json(order): Json<Order>, _|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromPayload for Json<T> {
    fn read(body: &Bytes) -> Result<Json<T>, PayloadError> {
        serde_json::from_slice(body).map(Json).map_err(|error| PayloadError::new(error.to_string()))
    }
}

impl<T: Serialize> ToPayload for Json<T> {
    fn write(&self) -> Result<Bytes, PayloadError> {
        serde_json::to_vec(&self.0).map(Bytes::from).map_err(|error| PayloadError::new(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;

    #[test]
    fn values_come_back_and_faults_say_where() {
        let message = Message::of("T", &Json(vec![1, 2])).expect("a list");
        assert_eq!(message.body(), "[1,2]");
        assert_eq!(Json::read(message.body()), Ok(Json(vec![1, 2])));
        let error = Json::<Vec<u32>>::read(&Bytes::from_static(b"[1,-2]")).expect_err("negative").to_string();
        assert!(error.contains("column 5"), "{error}");
    }
}
