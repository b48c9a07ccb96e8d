//! A member's code and constants, with the numbers that things have in the module of all.

use wasm_encoder::{
    ConstExpr, Instruction,
    reencode::{Error, Reencode, utils},
};
use wasmparser::Operator;

use super::layout::{SPACES, Space};

/// The value of a global that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    I32(i32),
    I64(i64),
}

impl Constant {
    fn instruction(self) -> Instruction<'static> {
        match self {
            Self::I32(value) => Instruction::I32Const(value),
            Self::I64(value) => Instruction::I64Const(value),
        }
    }
}

/// What one member's numbers become.
#[derive(Default)]
pub(super) struct Renumber {
    pub types: Vec<u32>,
    pub spaces: [Vec<u32>; SPACES],
    /// How many segments of other members come before its own.
    pub elements: u32,
    pub data: u32,
    /// The values of its globals, as far as they are known. wasmtime sets up a table or memory ahead of time only where the
    /// offsets are constants, and code needs not load them.
    pub constants: Vec<Option<Constant>>,
    /// The functions, by their new numbers, that code takes references to. Such a function must be mentioned outside the
    /// code, and what mentioned it may have been an export that is none any more.
    pub referenced: Vec<u32>,
}

/// A number that leads nowhere.
#[derive(Debug)]
pub(super) struct Unknown;

impl Renumber {
    pub fn item(&self, space: Space, index: u32) -> Option<u32> {
        self.spaces[space as usize].get(index as usize).copied()
    }

    fn known(&self, space: Space, index: u32) -> Result<u32, Error<Unknown>> {
        self.item(space, index).ok_or(Error::UserError(Unknown))
    }

    fn constant(&self, global: u32) -> Option<Constant> {
        self.constants.get(global as usize).copied().flatten()
    }

    /// Computes a constant expression of whole numbers.
    pub fn evaluate(&self, expression: &wasmparser::ConstExpr<'_>) -> Option<Constant> {
        let mut stack = Vec::new();
        let mut operators = expression.get_operators_reader();
        while !operators.is_end_then_eof() {
            let value = match operators.read().ok()? {
                Operator::I32Const { value } => Constant::I32(value),
                Operator::I64Const { value } => Constant::I64(value),
                Operator::GlobalGet { global_index } => self.constant(global_index)?,
                operator => {
                    let (right, left) = (stack.pop()?, stack.pop()?);
                    compute(&operator, left, right)?
                }
            };
            stack.push(value);
        }
        match stack[..] {
            [value] => Some(value),
            _ => None,
        }
    }
}

fn compute(operator: &Operator<'_>, left: Constant, right: Constant) -> Option<Constant> {
    Some(match (operator, left, right) {
        (Operator::I32Add, Constant::I32(left), Constant::I32(right)) => Constant::I32(left.wrapping_add(right)),
        (Operator::I32Sub, Constant::I32(left), Constant::I32(right)) => Constant::I32(left.wrapping_sub(right)),
        (Operator::I32Mul, Constant::I32(left), Constant::I32(right)) => Constant::I32(left.wrapping_mul(right)),
        (Operator::I64Add, Constant::I64(left), Constant::I64(right)) => Constant::I64(left.wrapping_add(right)),
        (Operator::I64Sub, Constant::I64(left), Constant::I64(right)) => Constant::I64(left.wrapping_sub(right)),
        (Operator::I64Mul, Constant::I64(left), Constant::I64(right)) => Constant::I64(left.wrapping_mul(right)),
        _ => return None,
    })
}

impl Reencode for Renumber {
    type Error = Unknown;

    fn type_index(&mut self, ty: u32) -> Result<u32, Error<Unknown>> {
        self.types.get(ty as usize).copied().ok_or(Error::UserError(Unknown))
    }

    fn function_index(&mut self, func: u32) -> Result<u32, Error<Unknown>> {
        self.known(Space::Func, func)
    }

    fn table_index(&mut self, table: u32) -> Result<u32, Error<Unknown>> {
        self.known(Space::Table, table)
    }

    fn memory_index(&mut self, memory: u32) -> Result<u32, Error<Unknown>> {
        self.known(Space::Memory, memory)
    }

    fn global_index(&mut self, global: u32) -> Result<u32, Error<Unknown>> {
        self.known(Space::Global, global)
    }

    fn element_index(&mut self, element: u32) -> Result<u32, Error<Unknown>> {
        Ok(self.elements + element)
    }

    fn data_index(&mut self, data: u32) -> Result<u32, Error<Unknown>> {
        Ok(self.data + data)
    }

    fn const_expr(&mut self, expression: wasmparser::ConstExpr<'_>) -> Result<ConstExpr, Error<Unknown>> {
        match self.evaluate(&expression) {
            Some(Constant::I32(value)) => Ok(ConstExpr::i32_const(value)),
            Some(Constant::I64(value)) => Ok(ConstExpr::i64_const(value)),
            None => utils::const_expr(self, expression),
        }
    }

    fn instruction<'a>(&mut self, operator: Operator<'a>) -> Result<Instruction<'a>, Error<Unknown>> {
        match operator {
            Operator::GlobalGet { global_index } => {
                if let Some(constant) = self.constant(global_index) {
                    return Ok(constant.instruction());
                }
            }
            Operator::RefFunc { function_index } => {
                let func = self.function_index(function_index)?;
                self.referenced.push(func);
            }
            _ => {}
        }
        utils::instruction(self, operator)
    }
}
