// Every row token proposes its most similar column token (cosine; docs/ops.md, rules 1 to 3).
//
// Full float64 similarities would cost 32 to 64 times the float32 ones on most GPUs. So float32 only filters: unit vectors
// are multiplied in float32, whose error is bounded by the margin below, and the few columns within the margin of the
// row's maximum are compared by their float64 similarity rounded to float32, which is what the reference compares.
// The result is that of the all-float64 computation.
//
// Geometry: 512 threads, 16 warps; a block does 128 rows, a warp 8 of them, a lane 4 columns (lane, lane + 32, ...) of a
// tile of 128. Channels pass through shared memory in chunks, already scaled to unit length.
#pragma once

#include "block.cuh"
#include "element.cuh"
#include "ranking.cuh"

namespace tmdeploy::cuda {

constexpr int kPlanThreads = 512;
constexpr int kPlanWarps = kPlanThreads / kWarpSize;
constexpr int kRowsPerWarp = 8;
constexpr int kTileRows = kPlanWarps * kRowsPerWarp;
constexpr int kColumnsPerLane = 4;
constexpr int kTileColumns = kWarpSize * kColumnsPerLane;

// Tokens at positions first, first + step, ..., or those of a list.
struct TokenList {
  const std::uint16_t* list;
  int first;
  int step;
  TM_DEVICE int operator[](int i) const { return list != nullptr ? list[i] : first + i * step; }
};

// Norms of a tile's tokens, and 1 / norm where float32 can hold the unit vector, else one of these:
constexpr float kZeroNorm = 0.0F;       // at most metric_eps: similarity 0 with everything
constexpr float kNoNorm = -1.0F;        // NaN or infinite: similarity NaN, except with kZeroNorm
constexpr float kExtremeNorm = -2.0F;   // finite, but 1 / norm or its products are not safe in float32

template <int kChunk>
struct alignas(16) ProposalTile {
  // 4 more than the chunk: 16-byte reads of 8 neighbouring columns then fall into different banks
  static constexpr int kColumnStride = kChunk + 4;
  static_assert(kColumnStride % 8 == 4, "stride must be an odd multiple of four words");
  static_assert(kChunk >= kColumnsPerLane, "the candidates' masks take the place of `rows`");
  double row_norm[kTileRows];
  double column_norm[kTileColumns];
  float row_scale[kTileRows];
  float column_scale[kTileColumns];
  // so far, of each row: the largest filter value, the best similarity and its column
  float filter_max[kTileRows];
  float best[kTileRows];
  int best_column[kTileRows];
  float rows[kTileRows * kChunk];
  float columns[kTileColumns * kColumnStride];
};

TM_DEVICE float scale_of(double norm, float eps) {
  if (norm <= static_cast<double>(eps)) return kZeroNorm;
  if (!(norm > 0.0) || !(norm < static_cast<double>(INFINITY))) return kNoNorm;
  if (norm < 0x1p-60 || norm > 0x1p60) return kExtremeNorm;
  return static_cast<float>(1.0 / norm);
}

// Dot product of two rows in float64, by one warp; products of floats are exact.
template <class T>
TM_DEVICE double warp_dot(const T* a, const T* b, int channels) {
  double sum = 0.0;
  for (int k = lane_id(); k < channels; k += kWarpSize)
    sum += static_cast<double>(to_float(a[k])) * static_cast<double>(to_float(b[k]));
  return warp_sum(sum);
}

// Norms and scales of tokens[first .. first + count).
template <class T>
TM_DEVICE void load_norms(const T* metric, int channels, const TokenList& tokens, int first, int count, float eps,
                          double* norm, float* scale) {
  for (int i = warp_id(); i < count; i += kPlanWarps) {
    const T* vector = metric + static_cast<std::int64_t>(tokens[first + i]) * channels;
    const double length = sqrt(warp_dot(vector, vector, channels));
    if (lane_id() == 0) {
      norm[i] = length;
      scale[i] = scale_of(length, eps);
    }
  }
}

// Channels [begin, begin + kChunk) of `capacity` tokens as unit vectors; zero beyond count and channels and where there is
// no unit vector.
template <class T, int kChunk, int kStride>
TM_DEVICE void load_chunk(const T* metric, int channels, const TokenList& tokens, int first, int count, int capacity,
                          int begin, bool aligned, const float* scale, float* out) {
  constexpr int kQuads = kChunk / 4;
  for (int q = static_cast<int>(threadIdx.x); q < capacity * kQuads; q += kPlanThreads) {
    const int i = q / kQuads;
    const int k = begin + q % kQuads * 4;
    Pack<float, 4> unit = {{0.0F, 0.0F, 0.0F, 0.0F}};
    if (i < count && scale[i] > 0.0F) {
      const T* source = metric + static_cast<std::int64_t>(tokens[first + i]) * channels + k;
      if (aligned && k + 4 <= channels) {
        const Pack<T, 4> four = *reinterpret_cast<const Pack<T, 4>*>(source);
#pragma unroll
        for (int e = 0; e < 4; ++e) unit.v[e] = to_float(four.v[e]) * scale[i];
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e)
          if (k + e < channels) unit.v[e] = to_float(source[e]) * scale[i];
      }
    }
    *reinterpret_cast<Pack<float, 4>*>(out + i * kStride + q % kQuads * 4) = unit;
  }
}

// emit(row, value, column), by one thread a row, for the rows [row_first, min(row_first + 128, row_count)).
// value is orderable. kChannels: 0 = any. aligned: rows of four elements start at multiples of their size.
template <class T, int kChannels, int kChunk, class Emit>
TM_DEVICE void propose(const T* metric, int any_channels, bool aligned, const TokenList& rows, int row_first,
                       int row_count, const TokenList& columns, int column_count, float eps, bool deterministic,
                       ProposalTile<kChunk>& tile, Emit emit) {
  static_assert(kChannels % kChunk == 0, "a fixed width has no partial chunk");
  const int channels = kChannels > 0 ? kChannels : any_channels;
  const int rows_here = min(kTileRows, row_count - row_first);
  const int warp_row = warp_id() * kRowsPerWarp;
  // Twice the error of a float32 dot of unit vectors, (C + 4) 2^-24 by Cauchy-Schwarz, and a rounding to float32.
  const float margin = deterministic ? static_cast<float>(channels + 8) * 0x1p-23F : 0.0F;

  load_norms(metric, channels, rows, row_first, rows_here, eps, tile.row_norm, tile.row_scale);

  for (int row = static_cast<int>(threadIdx.x); row < kTileRows; row += kPlanThreads) {
    tile.filter_max[row] = tile.best[row] = -INFINITY;
    tile.best_column[row] = 0;
  }

  for (int column_first = 0; column_first < column_count; column_first += kTileColumns) {
    const int columns_here = min(kTileColumns, column_count - column_first);
    __syncthreads();  // the last tile's norms have been read
    load_norms(metric, channels, columns, column_first, columns_here, eps, tile.column_norm, tile.column_scale);
    __syncthreads();

    float dot[kRowsPerWarp][kColumnsPerLane] = {};
    for (int begin = 0; begin < channels; begin += kChunk) {
      load_chunk<T, kChunk, kChunk>(metric, channels, rows, row_first, rows_here, kTileRows, begin, aligned,
                                    tile.row_scale, tile.rows);
      load_chunk<T, kChunk, ProposalTile<kChunk>::kColumnStride>(metric, channels, columns, column_first, columns_here,
                                                                 kTileColumns, begin, aligned, tile.column_scale,
                                                                 tile.columns);
      __syncthreads();
      if (warp_row < rows_here) {
#pragma unroll 1
        for (int k = 0; k < kChunk; k += 4) {
          Pack<float, 4> b[kColumnsPerLane];
#pragma unroll
          for (int c = 0; c < kColumnsPerLane; ++c)
            b[c] = *reinterpret_cast<const Pack<float, 4>*>(
                tile.columns + (lane_id() + c * kWarpSize) * ProposalTile<kChunk>::kColumnStride + k);
#pragma unroll
          for (int r = 0; r < kRowsPerWarp; ++r) {
            const Pack<float, 4> a = *reinterpret_cast<const Pack<float, 4>*>(tile.rows + (warp_row + r) * kChunk + k);
#pragma unroll
            for (int c = 0; c < kColumnsPerLane; ++c)
#pragma unroll
              for (int e = 0; e < 4; ++e) dot[r][c] = fmaf(a.v[e], b[c].v[e], dot[r][c]);
          }
        }
      }
      __syncthreads();
    }

    // Which columns may be the best: masks of lanes, in place of the rows' unit vectors, each warp its own.
    unsigned* candidates = reinterpret_cast<unsigned*>(tile.rows) + warp_row * kColumnsPerLane;
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) {
      const int row = warp_row + r;
      if (row >= rows_here) continue;  // the same for all lanes
      const float row_scale = tile.row_scale[row];
      bool extreme[kColumnsPerLane];
      float largest = -INFINITY;
#pragma unroll
      for (int c = 0; c < kColumnsPerLane; ++c) {
        const int column = lane_id() + c * kWarpSize;
        const float column_scale = column < columns_here ? tile.column_scale[column] : kNoNorm;
        extreme[c] = false;
        if (column >= columns_here) {
          dot[r][c] = -INFINITY;
        } else if (row_scale == kZeroNorm || column_scale == kZeroNorm) {
          dot[r][c] = 0.0F;
        } else if (row_scale == kNoNorm || column_scale == kNoNorm) {
          dot[r][c] = -INFINITY;
        } else if (row_scale == kExtremeNorm || column_scale == kExtremeNorm) {
          dot[r][c] = -INFINITY;
          extreme[c] = true;
        }
        largest = fmaxf(largest, dot[r][c]);
      }
      const float filter_max = fmaxf(tile.filter_max[row], warp_max(largest));
      const float threshold = filter_max - margin;
#pragma unroll
      for (int c = 0; c < kColumnsPerLane; ++c) {
        const bool candidate = extreme[c] || (dot[r][c] > -INFINITY && dot[r][c] >= threshold);
        const unsigned mask = __ballot_sync(kAllLanes, candidate);
        if (lane_id() == 0) candidates[r * kColumnsPerLane + c] = mask;
      }
      if (lane_id() == 0) tile.filter_max[row] = filter_max;
    }
    __syncwarp();
    for (int row = warp_row; row < min(warp_row + kRowsPerWarp, rows_here); ++row) {
      const T* row_vector = metric + static_cast<std::int64_t>(rows[row_first + row]) * channels;
      const float row_scale = tile.row_scale[row];
      float best = tile.best[row];
      int best_column = tile.best_column[row];
      for (int c = 0; c < kColumnsPerLane; ++c) {
        // ascending columns and a strict comparison: ties stay with the lowest
        for (unsigned left = candidates[(row - warp_row) * kColumnsPerLane + c]; left != 0; left &= left - 1) {
          const int column = __ffs(static_cast<int>(left)) - 1 + c * kWarpSize;
          const float column_scale = tile.column_scale[column];
          float value;
          if (row_scale == kZeroNorm || column_scale == kZeroNorm) {
            value = 0.0F;
          } else if (!deterministic && row_scale > 0.0F && column_scale > 0.0F) {
            value = tile.filter_max[row];  // without a margin the candidates have the maximum
          } else {
            const T* vector = metric + static_cast<std::int64_t>(columns[column_first + column]) * channels;
            const double product = tile.row_norm[row] * tile.column_norm[column];
            value = static_cast<float>(warp_dot(row_vector, vector, channels) / product);
          }
          value = orderable(value);
          if (value > best) {
            best = value;
            best_column = column_first + column;
          }
        }
      }
      __syncwarp();
      if (lane_id() == 0) {
        tile.best[row] = best;
        tile.best_column[row] = best_column;
      }
    }
  }
  __syncwarp();
  for (int row = warp_row + lane_id(); row < min(warp_row + kRowsPerWarp, rows_here); row += kWarpSize)
    emit(row_first + row, tile.best[row], tile.best_column[row]);
}

}  // namespace tmdeploy::cuda
