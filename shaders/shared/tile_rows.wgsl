    // The lane's rows of the tile, the sums of each, and with NORM those of their squares.
//#for a in DOWN
    let row${a} = tile.row + ${a}u * LANES + lane;
//#end
    var acc: array<vec4<f32>, TILE_SIZE>;
//#if NORM
    var squares: array<f32, DOWN>;
//#end
