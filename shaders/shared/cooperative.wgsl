// What product_cooperative needs: a workgroup is one subgroup, whose tile is HEIGHT by WIDTH matrices of SIZE by SIZE.
//#if EIGHT
alias LeftMatrix = coop_mat8x8<f16, A>;
alias RightMatrix = coop_mat8x8<f16, B>;
alias SumMatrix = coop_mat8x8<f32, C>;
//#else
alias LeftMatrix = coop_mat16x16<f16, A>;
alias RightMatrix = coop_mat16x16<f16, B>;
alias SumMatrix = coop_mat16x16<f32, C>;
//#end
// SIZE terms of every row and of every column of the tile, then the sums.
var<workgroup> left_stage: array<f16, LANES * DOWN * SIZE>;
var<workgroup> right_stage: array<f16, COLS * SIZE>;
var<workgroup> sums: array<f32, LANES * DOWN * COLS>;
