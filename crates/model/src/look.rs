//! What refocusing keeps of pictures, and how it is read for rows that look at different ones.

use crate::Result;
use crate::qformer::Reading;
use crate::refocus::Grid;
use candle_core::Tensor;
use lare_kernels::Collected;
use std::sync::Arc;

/// What refocusing keeps of each picture.
#[derive(Clone, Debug)]
pub struct Look {
    /// The keys of `DotProduct`, with values of zero that nobody reads, `[S, P, 2, 1, D]`.
    pub keys: Option<Tensor>,
    /// The LQ-Former's keys and values per block, `[S, M, 2, H, Dh]`; empty for other ways of thinking.
    pub memory: Vec<Collected>,
    /// The memory as tokens of the context, `[S, M, D]`, for [`Thinking::Splice`].
    pub tokens: Option<Tensor>,
    /// `[S]`, how the cells lie: grids one behind the other.
    pub grids: Vec<Vec<Grid>>,
    /// `[S * P]`, the real cells.
    pub visible: Arc<[bool]>,
    /// `S`.
    pub pictures: usize,
    /// Looks at one picture each whose memories and tokens are read where they are, in place of the two above; see
    /// [`Look::beside`].
    pub(crate) apart: Vec<Look>,
}

impl Look {
    /// Looks at one picture each, of equally many cells, as one at all of them. What is read of the memories is copied when it
    /// is read, and nothing else.
    pub(crate) fn beside(looks: &[&Self]) -> Result<Self> {
        let keys: Vec<&Tensor> = looks.iter().filter_map(|look| look.keys.as_ref()).collect();
        Ok(Self {
            keys: if keys.is_empty() { None } else { Some(Tensor::cat(&keys, 0)?) },
            memory: Vec::new(),
            tokens: None,
            grids: looks.iter().flat_map(|look| look.grids.clone()).collect(),
            visible: looks.iter().flat_map(|look| look.visible.iter().copied()).collect(),
            pictures: looks.len(),
            apart: looks.iter().map(|look| (*look).clone()).collect(),
        })
    }

    /// The memories and tokens that a reading is of, and the reading as it counts in them.
    pub(crate) fn read(&self, reading: Reading) -> Result<(Vec<Collected>, Option<Tensor>, Reading)> {
        if self.apart.is_empty() {
            return Ok((self.memory.clone(), self.tokens.clone(), reading));
        }
        let (b, j) = reading.bias.dims2()?;
        let entries: Vec<u32> =
            reading.entries.iter().map(|entry| if *entry == u32::MAX { 0 } else { *entry }).collect();
        let entries = Tensor::from_vec(entries, (b, j), reading.bias.device())?;
        let entries = (0..b).map(|row| Ok(entries.get(row)?)).collect::<Result<Vec<Tensor>>>()?;
        let blocks = self.apart.first().map_or(0, |look| look.memory.len());
        let memory = (0..blocks).map(|block| {
            let of_block: Vec<&Collected> = self.apart.iter().map(|look| &look.memory[block]).collect();
            Ok(Collected::gathered(&of_block, &entries)?)
        });
        let memory = memory.collect::<Result<Vec<_>>>()?;
        let tokens =
            self.apart.iter().zip(&entries).filter_map(|(look, entries)| Some((look.tokens.as_ref()?, entries)));
        let tokens =
            tokens.map(|(tokens, entries)| Ok(tokens.index_select(entries, 1)?)).collect::<Result<Vec<_>>>()?;
        let tokens = if tokens.is_empty() { None } else { Some(Tensor::cat(&tokens, 0)?) };
        let here = |(at, entry): (usize, &u32)| if *entry == u32::MAX { u32::MAX } else { (at % j) as u32 };
        let entries = reading.entries.iter().enumerate().map(here).collect();
        Ok((memory, tokens, Reading { entries, memory_of_row: (0..b as u32).collect(), ..reading }))
    }

    /// Bytes of its tensors.
    pub(crate) fn bytes(&self) -> usize {
        let of = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let tensors = self.keys.iter().chain(&self.tokens).map(of).sum::<usize>();
        tensors + self.memory.iter().map(Collected::bytes).sum::<usize>()
    }

    /// `P`, padding included.
    pub fn patches(&self) -> usize {
        self.visible.len() / self.pictures.max(1)
    }
}
