//#if NORM
//#for a in DOWN
    {
        let factor = 1.0 / sqrt(squares[${a}] / f32(params.inner) + params.eps);
//#for q in QUADS
        acc[${a}u * QUADS + ${q}u] *= factor;
//#end
//#if KEEP
        if (tile.col == 0u && row${a} < rows) {
            inv[row${a}] = factor;
        }
//#end
    }
//#end
//#end
