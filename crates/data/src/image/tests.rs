use super::*;
use ::image::{Luma, LumaA, RgbImage, Rgba};

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn gradient(width: usize, height: usize) -> Picture {
    let rgb = (0..width * height).flat_map(|i| [(i % 251) as u8, (i / width % 256) as u8, 90]).collect();
    Picture { width, height, rgb }
}

fn rgb_image(picture: &Picture) -> DynamicImage {
    RgbImage::from_raw(picture.width as u32, picture.height as u32, picture.rgb.clone()).unwrap().into()
}

#[test]
fn every_format_we_name_is_read() {
    let picture = gradient(40, 30);
    for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Jpeg] {
        let read = decode(&encoded(&rgb_image(&picture), format), "x").unwrap();
        assert_eq!((read.width, read.height), (40, 30), "{format:?}");
        if matches!(format, ImageFormat::Png | ImageFormat::Bmp | ImageFormat::WebP) {
            assert_eq!(read, picture, "{format:?}");
        }
    }
}

#[test]
fn the_header_alone_tells_the_size() {
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg] {
        let bytes = encoded(&rgb_image(&gradient(40, 30)), format);
        assert_eq!(dimensions(&bytes, "x").unwrap(), (40, 30), "{format:?}");
    }
    assert!(matches!(dimensions(b"no picture", "x"), Err(ImageError::Format { .. })));
}

#[test]
fn grey_sixteen_bit_and_transparent_pictures_become_rgb_on_white() {
    let cases: [(DynamicImage, [u8; 3]); 5] = [
        (ImageBuffer::from_pixel(2, 2, Luma([70_u8])).into(), [70; 3]),
        (ImageBuffer::from_pixel(2, 2, Luma([70_u16 * 257])).into(), [70; 3]),
        (ImageBuffer::from_pixel(2, 2, Rgb([257_u16, 514, 65535])).into(), [1, 2, 255]),
        (ImageBuffer::from_pixel(2, 2, Rgba([10_u8, 20, 30, 0])).into(), [255; 3]),
        (ImageBuffer::from_pixel(2, 2, LumaA([0_u8, 51])).into(), [204; 3]),
    ];
    for (image, expected) in cases {
        let read = decode(&encoded(&image, ImageFormat::Png), "x").unwrap();
        assert_eq!(read.rgb[..3], expected);
    }
}

#[test]
fn only_what_shows_through_is_called_transparent() {
    let notes = |alphas: [u8; 2]| {
        let image = ImageBuffer::from_fn(32, 16, |x, _| Rgba([10_u8, 20, 30, alphas[x as usize / 16]]));
        decode_noted(&encoded(&image.into(), ImageFormat::Png), "x").unwrap().notes
    };
    assert!(notes([255, 255]).is_empty());
    assert_eq!(notes([255, 254]), ["transparent: shown on white"]);
}

#[test]
fn a_cmyk_jpeg_shows_its_colours() {
    // 16 x 16 of full magenta and yellow, written by Pillow: red.
    let red = decode(include_bytes!("../../fixtures/cmyk-red.jpg"), "cmyk-red.jpg").unwrap();
    assert_eq!(red.rgb[..3], [255, 0, 0]);
}

/// A PNG header that claims a size, with no pixels behind it.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([8, 2, 0, 0, 0]);
    bytes.extend(crc(&bytes[12..]).to_be_bytes());
    bytes.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[test]
fn a_picture_that_claims_to_be_huge_is_refused_before_decoding() {
    for (width, height) in [(20_000, 20_000), (16_385, 1), (9_000, 9_000), (u32::MAX / 2, u32::MAX / 2)] {
        let error = decode(&png_header(width, height), "huge.png").unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains("huge.png") && error.to_string().contains("65000000"), "{error}");
    }
    let error = decode(&png_header(20_000, 20_000), "huge.png").unwrap_err().to_string();
    assert!(error.contains("20000 x 20000 pixels"), "{error}");
}

#[test]
fn every_cut_of_a_file_is_refused_or_whole() {
    let picture = gradient(64, 48);
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp] {
        let bytes = encoded(&rgb_image(&picture), format);
        for part in [0, 1, 2, 10, 50, 90, 98] {
            let error = decode(&bytes[..bytes.len() * part / 100], "cut").unwrap_err().to_string();
            assert!(error.contains("`cut`"), "{format:?} {part}: {error}");
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let bytes = encoded(&rgb_image(&gradient(64, 48)), ImageFormat::Png);
    let jpeg = encoded(&rgb_image(&gradient(64, 48)), ImageFormat::Jpeg);
    for original in [bytes, jpeg] {
        for at in 0..original.len() {
            let mut damaged = original.clone();
            damaged[at] ^= 0x5a;
            drop(decode(&damaged, "damaged"));
        }
    }
}

#[test]
fn what_is_not_a_picture_is_refused_with_how_it_begins() {
    let error = decode(b"%PDF-1.7 and so on", "paper.pdf").unwrap_err().to_string();
    assert!(error.contains("paper.pdf") && error.contains("%PDF-1.7") && error.contains("PNG, JPEG"), "{error}");
    assert!(decode(b"", "empty").unwrap_err().to_string().contains("no data"));
    let error = open(Path::new("/nowhere/a.png")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/a.png"), "{error}");
}

/// A JPEG with an EXIF orientation put behind its start marker.
fn turned_jpeg(picture: &Picture, orientation: u8) -> Vec<u8> {
    let bytes = encoded(&rgb_image(picture), ImageFormat::Jpeg);
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut turned = vec![0xff, 0xd8, 0xff, 0xe1];
    turned.extend((exif.len() as u16 + 2).to_be_bytes());
    turned.extend(exif);
    turned.extend(&bytes[2..]);
    turned
}

#[test]
fn exif_orientation_is_applied_and_noted() {
    let plain = decode(&turned_jpeg(&gradient(32, 16), 1), "x").unwrap();
    let opened = decode_noted(&turned_jpeg(&gradient(32, 16), 6), "x").unwrap();
    let turned = opened.picture;
    assert_eq!((turned.width, turned.height), (16, 32));
    // Turned clockwise: the first pixel of the last row becomes the first of all.
    assert_eq!(turned.rgb[..3], plain.rgb[15 * 32 * 3..][..3]);
    assert!(opened.notes[0].contains("EXIF"), "{:?}", opened.notes);
}

#[test]
fn of_an_animation_the_first_frame_is_taken_and_noted() {
    let mut bytes = Vec::new();
    let mut encoder = ::image::codecs::gif::GifEncoder::new(&mut bytes);
    for grey in [10, 200] {
        let frame = ImageBuffer::from_pixel(4, 4, Rgba([grey, grey, grey, 255_u8]));
        encoder.encode_frame(::image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    let opened = decode_noted(&bytes, "x").unwrap();
    assert_eq!(opened.picture.rgb[0], 10);
    assert!(opened.notes.iter().any(|note| note.contains("first frame")), "{:?}", opened.notes);
}

#[test]
fn a_picture_of_whole_cells_is_left_as_it_is() {
    let picture = gradient(448, 448);
    let seen = prepare(&picture, 64, 64);
    assert!(seen.rgb == picture.rgb && seen.scale == 1.0 && (seen.rows, seen.cols) == (7, 7));
}

#[test]
fn any_shape_is_prepared_to_whole_cells_within_bounds_and_keeps_its_shape() {
    let cases = [
        ((448, 320), (5, 7)),
        ((640, 640), (8, 8)),
        ((1, 1), (3, 3)),
        ((100, 50), (3, 6)),
        ((5000, 3), (1, 64)),
        ((3, 5000), (64, 1)),
        ((4000, 3000), (7, 9)),
        ((449, 448), (7, 8)),
    ];
    for ((width, height), (rows, cols)) in cases {
        let seen = prepare(&gradient(width, height), 64, 64);
        assert_eq!((seen.rows, seen.cols), (rows, cols), "{width} x {height}");
        assert_eq!((seen.width, seen.height), (cols * 64, rows * 64));
        assert_eq!(seen.rgb.len(), seen.width * seen.height * 3);
        assert!(seen.inner_width <= seen.width && seen.inner_height <= seen.height);
        assert!((seen.inner_width as f32 - width as f32 * seen.scale).abs() <= 1.0);
        assert!((seen.inner_height as f32 - height as f32 * seen.scale).abs() <= 1.0);
    }
}

#[test]
fn padding_has_the_mean_colour_of_the_border() {
    let picture = Picture { width: 448, height: 400, rgb: [10, 20, 30].repeat(448 * 400) };
    let seen = prepare(&picture, 64, 64);
    assert_eq!((seen.inner_height, seen.height), (400, 448));
    assert!(seen.rgb.chunks_exact(3).all(|pixel| pixel == [10, 20, 30]));
}

#[test]
fn a_region_goes_to_the_model_and_back() {
    let seen = prepare(&gradient(900, 600), 64, 64);
    let region = Region { left: 90.0, top: 60.0, right: 450.0, bottom: 300.0 };
    let there = seen.to_model(&region);
    assert!((there.right / seen.inner_width as f32 - 0.5).abs() < 0.01);
    let back = seen.to_picture(&there);
    assert!((back.left - region.left).abs() < 1e-3 && (back.bottom - region.bottom).abs() < 1e-3);
}

/// Files of tools/reference/jpegs.py; `LARE_JPEGS` names a folder of more.
#[test]
fn jpegs_show_the_pixels_that_the_reference_reads_in_them() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/jpeg");
    let more = std::env::var_os("LARE_JPEGS").map(std::path::PathBuf::from);
    let folders = std::iter::once(committed).chain(more);
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let jpegs: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "jpg")).collect();
    assert!(jpegs.len() >= 8, "{jpegs:?}");
    for file in jpegs {
        let expected = open(&file.with_extension("png")).unwrap();
        assert!(open(&file).unwrap() == expected, "{}", file.display());
    }
}

#[test]
fn a_jpeg_of_thousands_of_passes_is_refused() {
    let progressive = include_bytes!("../../fixtures/jpeg/progressive.jpg");
    // Its last scan again and again.
    let scan = progressive.windows(2).rposition(|bytes| bytes == [0xff, 0xda]).unwrap();
    let (before, end) = (&progressive[..progressive.len() - 2], &progressive[progressive.len() - 2..]);
    let bomb = [before, &before[scan..].repeat(1000), end].concat();
    assert!(matches!(decode(&bomb, "bomb.jpg"), Err(ImageError::TooLarge { .. })));
}
