//! Where the image tokens of a pretrained model lie on its picture, as one grid, which a trace is drawn on.
//!
//! Qwen's tokens are one grid already. SmolVLM sees tiles, and then the whole picture in one tile more. The grid is that of
//! the tiles; a token of the view of the whole covers a block of `rows` x `cols` of its cells, one of each tile's width and
//! height, and what it weighs is shared evenly among them. A picture that is not split has the view of the whole alone,
//! which is its grid.

use crate::look::LookReport;
use lare_data::{Layout, Size};
use lare_trace::Grid;
use std::collections::BTreeSet;

/// The image tokens of one picture on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Places {
    /// The grid, over the whole picture.
    pub grid: Grid,
    /// The cells under each image token, in the order of the prompt.
    cells: Vec<Vec<usize>>,
}

impl Places {
    /// Of a picture of `size` pixels that a processor lays out so. `side` is the side of a square of patches that become one
    /// token (Qwen), or the tokens on a side of a tile (SmolVLM); `fine_per_cell` the features that a second look finds
    /// under one token.
    pub(crate) fn new(layout: Layout, side: usize, fine_per_cell: usize, size: Size) -> Self {
        let (rows, cols, tiles) = match layout {
            Layout::Grid { rows, cols } => (rows / side.max(1), cols / side.max(1), None),
            Layout::Tiles { rows: 0, .. } | Layout::Tiles { cols: 0, .. } => (side, side, None),
            Layout::Tiles { rows, cols } => (rows * side, cols * side, Some((rows, cols))),
        };
        let cells = match tiles {
            None => (0..rows * cols).map(|cell| vec![cell]).collect(),
            Some(tiles) => in_tiles(tiles, side),
        };
        let grid = Grid {
            rows,
            cols,
            cell_px_x: size.width as f32 / cols.max(1) as f32,
            cell_px_y: size.height as f32 / rows.max(1) as f32,
            fine_per_cell,
        };
        Self { grid, cells }
    }

    /// Of a picture whose cells are its image tokens, row by row.
    pub(crate) fn of_cells(grid: Grid) -> Self {
        Self { grid, cells: (0..grid.cells()).map(|cell| vec![cell]).collect() }
    }

    /// Image tokens of the picture.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.cells.len()
    }

    /// The image token over each of these cells: where several are, the one that covers the least.
    #[must_use]
    pub fn over(&self, cells: &[usize]) -> Vec<usize> {
        let over = |cell: &usize| {
            let tokens = self.cells.iter().enumerate().filter(|(_, cells)| cells.contains(cell));
            tokens.min_by_key(|(_, cells)| cells.len()).map(|(token, _)| token)
        };
        cells.iter().filter_map(over).collect()
    }

    /// Weights of image tokens as weights of cells, with the same sum.
    #[must_use]
    pub fn weights(&self, of_tokens: &[f32]) -> Vec<f32> {
        let mut weights = vec![0.0; self.grid.cells()];
        for (weight, cells) in of_tokens.iter().zip(&self.cells) {
            cells.iter().for_each(|cell| weights[*cell] += weight / cells.len() as f32);
        }
        weights
    }

    /// Image tokens as one cell each: that of a block is the one nearest to its middle that no better token has. A token
    /// whose cells are all taken is left out.
    #[must_use]
    pub fn selected(&self, tokens: &[usize]) -> Vec<usize> {
        let mut taken = BTreeSet::new();
        tokens.iter().filter_map(|token| self.select(*token, &mut taken)).collect()
    }

    fn select(&self, token: usize, taken: &mut BTreeSet<usize>) -> Option<usize> {
        let cells = self.cells.get(token)?;
        let free = cells.iter().filter(|cell| !taken.contains(*cell));
        let cell = *free.min_by_key(|cell| self.distance_to_middle(**cell, cells))?;
        taken.insert(cell);
        Some(cell)
    }

    /// How far a cell is from the middle of a block, squared, in half cells.
    fn distance_to_middle(&self, cell: usize, block: &[usize]) -> usize {
        let at = |cell: usize| [cell / self.grid.cols, cell % self.grid.cols];
        let ends = [block.first(), block.last()].map(|end| at(end.copied().unwrap_or(cell)));
        let distance = |axis: usize| (2 * at(cell)[axis]).abs_diff(ends[0][axis] + ends[1][axis]);
        distance(0).pow(2) + distance(1).pow(2)
    }
}

/// A look at the image tokens of pictures, one picture behind the other, as a look at their cells in the same order.
pub(crate) fn on_cells(places: &[Places], look: LookReport) -> LookReport {
    let (mut scores, mut tokens) = (Vec::with_capacity(look.scores.len()), 0);
    let mut firsts = Vec::with_capacity(places.len()); // of each picture its first token and its first cell
    for of in places {
        firsts.push((tokens, scores.len()));
        let end = (tokens + of.tokens()).min(look.scores.len());
        scores.extend(of.weights(look.scores.get(tokens..end).unwrap_or_default()));
        tokens += of.tokens();
    }
    let mut taken = vec![BTreeSet::new(); places.len()];
    let chosen = look.chosen.iter().filter_map(|token| {
        let picture = firsts.iter().rposition(|(first, _)| first <= token)?;
        let (token_of, cell_of) = firsts[picture];
        Some(cell_of + places[picture].select(token - token_of, &mut taken[picture])?)
    });
    LookReport { chosen: chosen.collect(), scores, ..look }
}

/// Tiles row by row, the tokens of each row by row; then the whole.
fn in_tiles((rows, cols): (usize, usize), side: usize) -> Vec<Vec<usize>> {
    let cell = |row: usize, col: usize| row * cols * side + col;
    let square = || (0..side).flat_map(move |row| (0..side).map(move |col| (row, col)));
    let tiles = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
    let of_tile = |(tile_row, tile_col): (usize, usize)| {
        square().map(move |(row, col)| vec![cell(tile_row * side + row, tile_col * side + col)])
    };
    let block = |(row, col): (usize, usize)| {
        let within = (0..rows).flat_map(|down| (0..cols).map(move |right| (down, right)));
        within.map(|(down, right)| cell(row * rows + down, col * cols + right)).collect()
    };
    tiles.flat_map(of_tile).chain(square().map(block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lare_data::Processor;

    fn processor(json: &str) -> Processor {
        Processor::from_json(json, "preprocessor_config.json").unwrap()
    }

    /// That the cells of each token lie where the processor says that the token is.
    fn agree(processor: &Processor, size: Size, token_px: usize, side: usize) -> Places {
        let places = Places::new(processor.layout(size).unwrap(), side, 4, size);
        let views = processor.views(size, token_px).unwrap();
        let regions: Vec<_> = views.iter().flat_map(|view| view.tokens()).collect();
        assert_eq!(regions.len(), places.tokens());
        for (region, cells) in regions.iter().zip(&places.cells) {
            let rectangles: Vec<_> = cells.iter().map(|cell| places.grid.cell(*cell)).collect();
            let least = |of: &dyn Fn(&lare_trace::Region) -> f32| rectangles.iter().map(of).fold(f32::MAX, f32::min);
            let most = |of: &dyn Fn(&lare_trace::Region) -> f32| rectangles.iter().map(of).fold(0.0, f32::max);
            let got = [least(&|r| r.x), least(&|r| r.y), most(&|r| r.x + r.width), most(&|r| r.y + r.height)];
            let expected = [region.left, region.top, region.right, region.bottom];
            assert!(got.iter().zip(expected).all(|(got, e)| (got - e).abs() < 0.01), "{got:?} for {expected:?}");
        }
        places
    }

    const SMOLVLM: &str = r#"{"image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": true,
        "size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 16}}"#;
    const QWEN: &str = r#"{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2,
        "min_pixels": 64, "max_pixels": 4096}"#;

    #[test]
    fn cells_lie_where_the_processor_says_their_tokens_are_on_wide_and_tall_pictures() {
        for size in [(640, 200), (200, 640), (333, 333), (1999, 70)].map(|(width, height)| Size { width, height }) {
            agree(&processor(SMOLVLM), size, 8, 2);
            agree(&processor(QWEN), size, 8, 2);
            agree(&processor(SMOLVLM).with_image_splitting(false), size, 8, 2);
        }
    }

    #[test]
    fn a_look_at_a_cell_of_a_tile_lands_at_its_pixels() {
        // 4 tiles across, 1 or 2 down, 2 x 2 tokens in each.
        let wide = Size { width: 640, height: 200 };
        let Layout::Tiles { rows, cols } = processor(SMOLVLM).layout(wide).unwrap() else { panic!("tiles") };
        let places = Places::new(Layout::Tiles { rows, cols }, 2, 4, wide);
        // The third tile of the first row, its lower right token.
        let token = 2 * 4 + 3;
        let [cell] = places.selected(&[token])[..] else { panic!("one cell") };
        let at = places.grid.cell(cell);
        assert_eq!((at.x, at.width), (640.0 * 5.0 / 8.0, 80.0));
        assert_eq!((at.y, at.height), (200.0 / (2 * rows) as f32, 200.0 / (2 * rows) as f32));
        let tall = Size { width: 200, height: 640 };
        let Layout::Tiles { rows, cols } = processor(SMOLVLM).layout(tall).unwrap() else { panic!("tiles") };
        let places = Places::new(Layout::Tiles { rows, cols }, 2, 4, tall);
        // The tile in the third row and the first column, its upper right token.
        let token = (2 * cols) * 4 + 1;
        let at = places.grid.cell(places.selected(&[token])[0]);
        assert_eq!((at.y, at.height), (640.0 * 4.0 / 8.0, 80.0));
        assert_eq!((at.x, at.width), (200.0 / (2 * cols) as f32, 200.0 / (2 * cols) as f32));
    }

    #[test]
    fn the_view_of_the_whole_is_shared_among_the_cells_under_it() {
        let size = Size { width: 300, height: 200 };
        let places = Places::new(Layout::Tiles { rows: 2, cols: 3 }, 2, 4, size);
        assert_eq!((places.grid.rows, places.grid.cols, places.tokens()), (4, 6, 28));
        let mut weights = vec![0.0; 28];
        (weights[0], weights[24]) = (0.4, 0.6); // the first cell, and the upper left quarter
        let cells = places.weights(&weights);
        assert!((cells[0] - 0.5).abs() < 1e-6 && (cells[1] - 0.1).abs() < 1e-6 && cells[3] == 0.0, "{cells:?}");
        assert!((cells.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        // The middle of three columns and two rows, then what is left of it.
        assert_eq!(places.selected(&[24]), [1]);
        let again = places.selected(&[1, 24]);
        assert_eq!((again.len(), again[0]), (2, 1));
        assert!(again[1] != 1 && [0, 2, 6, 7, 8].contains(&again[1]), "{again:?}");
    }

    #[test]
    fn a_look_at_several_pictures_counts_through_the_cells_of_all() {
        let size = Size { width: 300, height: 200 };
        let tiles = Places::new(Layout::Tiles { rows: 1, cols: 2 }, 1, 4, size); // 2 cells, and 1 token over both
        let plain = Places::new(Layout::Grid { rows: 2, cols: 4 }, 2, 4, size); // 2 cells
        let look =
            LookReport { scores: vec![0.1, 0.2, 0.4, 0.1, 0.2], chosen: vec![4, 2, 0, 1], ..LookReport::default() };
        let seen = on_cells(&[tiles, plain.clone()], look.clone());
        assert!(seen.scores.iter().zip([0.3, 0.4, 0.1, 0.2]).all(|(got, expected)| (got - expected).abs() < 1e-6));
        // The token over both takes the first of its cells, whose own token is left without one.
        assert_eq!(seen.chosen, [3, 0, 1]);
        let same = LookReport { scores: vec![0.75, 0.25], chosen: vec![1, 0], ..LookReport::default() };
        assert_eq!(on_cells(&[plain], same.clone()), same);
    }
}
