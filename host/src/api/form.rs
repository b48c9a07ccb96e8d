//! A form with files, as WeChat's uploads take it (`multipart/form-data`, RFC 7578).

/// What goes up in one call.
#[derive(Clone, Debug, Default)]
pub struct Form {
    fields: Vec<Field>,
}

/// One field of a form.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    /// The name and type of a file; nothing for a plain text.
    pub file: Option<(String, String)>,
    pub data: Vec<u8>,
}

/// The type of a file by the ending of its name: those of the files that WeChat takes.
pub fn content_type(file_name: &str) -> &'static str {
    let ending = file_name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("png") => "image/png",
        Some("gif") => "image/gif",
        Some("bmp") => "image/bmp",
        Some("mp3") => "audio/mpeg",
        Some("amr") => "audio/amr",
        Some("mp4") => "video/mp4",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

impl Form {
    /// A form of these fields, in their order.
    ///
    /// # Errors
    ///
    /// A name or type that would break out of its line.
    pub fn new(fields: Vec<Field>) -> Result<Self, String> {
        let is_line = |text: &str| !text.contains(['\r', '\n', '"', '\0']);
        for Field { name, file, .. } in &fields {
            let (file_name, content_type) = file.clone().unwrap_or_default();
            if name.is_empty() || ![name, &file_name, &content_type].into_iter().all(|text| is_line(text)) {
                return Err(
                    "a form's names and types must have no quotes and no line breaks, and a name must not be empty"
                        .to_owned(),
                );
            }
        }
        Ok(Self { fields })
    }

    /// Writes the form. Returns its content type, and the body.
    pub(super) fn written(&self) -> (String, Vec<u8>) {
        let boundary = boundary();
        let mut body = Vec::new();
        for Field { name, file, data } in &self.fields {
            let file = file
                .as_ref()
                .map(|(file_name, content_type)| format!("; filename=\"{file_name}\"\r\nContent-Type: {content_type}"));
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{}\r\n\r\n",
                file.unwrap_or_default()
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(data);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        (format!("multipart/form-data; boundary={boundary}"), body)
    }
}

/// A line that nobody can have put into a field: it is drawn when the fields are there. To look for one that is free would let
/// a plugin choose fields in which that takes minutes.
fn boundary() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system's random numbers are always there once it has booted");
    format!("aviary-{:032x}", u128::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, file_name: &str, data: &str) -> Field {
        Field { name: name.into(), file: Some((file_name.into(), "image/png".into())), data: data.into() }
    }

    #[test]
    fn a_form_is_written_as_wechat_takes_it() {
        let text = Field { name: "description".into(), file: None, data: b"{\"title\":\"a\"}".into() };
        let (content_type, body) = Form::new(vec![file("media", "图.png", "PNG"), text]).unwrap().written();
        let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"media\"; filename=\"图.png\"\r\n\
                 Content-Type: image/png\r\n\r\nPNG\r\n\
                 --{boundary}\r\nContent-Disposition: form-data; name=\"description\"\r\n\r\n{{\"title\":\"a\"}}\r\n\
                 --{boundary}--\r\n"
            )
        );
    }

    #[test]
    fn a_file_cannot_know_what_ends_its_field() {
        let content_type = || Form::new(vec![file("media", "a", "x")]).unwrap().written().0;
        assert_ne!(content_type(), content_type());
    }

    #[test]
    fn a_name_cannot_break_out_of_its_line() {
        for (name, file_name) in [("a\"", "b"), ("a", "b\r\nX: y"), ("", "b"), ("a", "\"; name=\"c")] {
            assert!(Form::new(vec![file(name, file_name, "")]).is_err(), "{name} {file_name}");
        }
    }
}
