//! Traces for the eye: pictures, an animation, a page, and text.

pub mod animation;
pub mod heatmap;
pub mod html;
mod overlay;
pub mod text;
