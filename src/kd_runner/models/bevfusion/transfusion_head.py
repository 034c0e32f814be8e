"""TransFusionHead for lidar alone (Bai et al., CVPR 2022, arXiv 2203.11496), as configured by BEVFusion."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_runner.models.bevfusion.decoder import DecoderLayer, grid_positions

# Numbers of each regressed quantity, in the order of the code.
BRANCHES = {"center": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}


class ConvModule(nn.Module):
    """Convolution, batch norm, ReLU.

    Args:
        conv: without bias.
        norm: after it.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module):
        super().__init__()
        self.conv, self.bn = conv, norm

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in turn.

        Args:
            x: what `conv` takes.

        Returns:
            A map, at least 0.
        """
        return self.bn(self.conv(x)).relu()


class PredictionHead(nn.ModuleDict):
    """Branches that read a box code and class logits from each query.

    Args:
        channels: width of the queries.
        classes: number of classes.
        hidden: width inside each branch.
    """

    def __init__(self, channels: int, classes: int, hidden: int):
        super().__init__()
        for name, numbers in (BRANCHES | {"heatmap": classes}).items():
            conv = ConvModule(nn.Conv1d(channels, hidden, 1, bias=False), nn.BatchNorm1d(hidden))
            self[name] = nn.Sequential(conv, nn.Conv1d(hidden, numbers, 1))

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the box codes and class logits of every query.

        Args:
            query: `(B, channels, P)`.

        Returns:
            Codes `(B, P, 10)`, the center as an offset, and class logits `(B, P, classes)`.
        """
        codes = torch.cat([self[name](query) for name in BRANCHES], dim=1)
        return codes.transpose(1, 2), self["heatmap"](query).transpose(1, 2)


class TransFusionHead(nn.Module):
    """A heat map proposes queries; a transformer decoder refines each into one box.

    Args:
        in_channels: of the map (B, in_channels, X, Y).
        map_shape: X, Y.
        num_classes: number of classes.
        num_proposals: queries per sample.
        hidden_channels: width of map and queries inside the head.
        num_heads: attention heads; divides `hidden_channels`.
        num_decoder_layers: layers, each with its prediction head.
        ffn_channels: width inside the decoder's feed-forward nets.
        dropout: probability, in the decoder.
        nms_kernel: side in cells of the square in which a proposal must be the highest of its class. It must lie in the
            map: cells nearer to the border propose nothing.
        point_classes: labels whose every cell may propose, at the border too (nuScenes: pedestrian and cone).
        branch_hidden: channels inside each branch of the prediction head.
        heatmap_bias: initial bias of all class logits, such as -2.19, a prior of 0.1 (CenterNet); None leaves torch's,
            as the public training does.
        bn_momentum: of every batch norm in the head.

    Raises:
        ValueError: more proposals than cells, an even kernel, a point class that is none, heads that do not divide.
    """

    positions: Tensor
    point: Tensor

    def __init__(
        self,
        in_channels: int,
        map_shape: tuple[int, int],
        num_classes: int = 10,
        *,
        num_proposals: int = 200,
        hidden_channels: int = 128,
        num_heads: int = 8,
        num_decoder_layers: int = 1,
        ffn_channels: int = 256,
        dropout: float = 0.1,
        nms_kernel: int = 3,
        point_classes: Sequence[int] = (8, 9),
        branch_hidden: int = 64,
        heatmap_bias: float | None = None,
        bn_momentum: float = 0.1,
    ):
        super().__init__()
        cells = num_classes * map_shape[0] * map_shape[1]
        if num_proposals > cells:
            raise ValueError(f"num_proposals={num_proposals}: the heat map has {cells} cells")
        if nms_kernel % 2 == 0 or nms_kernel > min(map_shape):
            raise ValueError(f"nms_kernel={nms_kernel}: must be odd and fit into {map_shape} cells")
        if any(not 0 <= label < num_classes for label in point_classes):
            raise ValueError(f"point_classes={list(point_classes)}: labels are 0 to {num_classes - 1}")
        if hidden_channels % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide hidden_channels={hidden_channels}")
        self.num_classes, self.num_proposals, self.nms_kernel = num_classes, num_proposals, nms_kernel
        width = hidden_channels
        self.shared_conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.heatmap_head = nn.Sequential(
            ConvModule(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
            nn.Conv2d(width, num_classes, 3, padding=1),
        )
        self.class_encoding = nn.Conv1d(num_classes, width, 1)
        layers = range(num_decoder_layers)
        self.decoder = nn.ModuleList(DecoderLayer(width, num_heads, ffn_channels, dropout) for _ in layers)
        heads = [PredictionHead(width, num_classes, branch_hidden) for _ in layers]
        self.prediction_heads = nn.ModuleList(heads)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = bn_momentum
        if heatmap_bias is not None:
            for bias in [
                self.get_parameter("heatmap_head.1.bias"),
                *(h.get_parameter("heatmap.1.bias") for h in heads),
            ]:
                nn.init.constant_(bias, heatmap_bias)
        self.register_buffer("positions", grid_positions(map_shape), persistent=False)
        point = torch.zeros(num_classes, 1, 1, dtype=torch.bool)
        point[list(point_classes)] = True
        self.register_buffer("point", point, persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Predict boxes, as codes, from a map.

        Args:
            x: `(B, in_channels, X, Y)`.

        Returns:
            `heatmap`: logits `(B, classes, X, Y)`.
            `query_labels`: class that proposed each query, `(B, P)`, int64.
            `query_heatmap_score`: thinned heat map at the queries' cells `(B, classes, P)`, in 0..1, detached.
            `codes`: of each decoder layer, as `BoxCoder`, `(layers, B, P, 10)`.
            `cls_logits`: `(layers, B, P, classes)`.
        """
        feature = self.shared_conv(x)
        heatmap = self.heatmap_head(feature)
        cells = feature.flatten(2).transpose(1, 2)
        peaks = self._peaks(heatmap.detach().float().sigmoid()).flatten(2)
        # topk and not a sort: exporters know it.
        flat = peaks.flatten(1).topk(self.num_proposals, dim=1).indices
        labels, cell = flat // peaks.shape[2], flat % peaks.shape[2]
        query = cells.gather(1, cell[..., None].expand(-1, -1, cells.shape[2]))
        one_hot = (labels[:, None] == torch.arange(self.num_classes, device=x.device)[:, None]).to(query.dtype)
        query = query + self.class_encoding(one_hot).transpose(1, 2)
        position = self.positions[0][cell]
        codes, logits = [], []
        for decoder, head in zip(self.decoder, self.prediction_heads):
            query = decoder(query, cells, position, self.positions)
            code, logit = head(query.transpose(1, 2))
            code = torch.cat((code[..., :2] + position, code[..., 2:]), -1)
            codes.append(code)
            logits.append(logit)
            position = code[..., :2].detach()
        return {
            "heatmap": heatmap,
            "query_labels": labels,
            "query_heatmap_score": peaks.gather(2, cell[:, None].expand(-1, self.num_classes, -1)),
            "codes": torch.stack(codes),
            "cls_logits": torch.stack(logits),
        }

    def _peaks(self, heatmap: Tensor) -> Tensor:
        """The heat map, zero where a neighbor is higher and, but for point classes, at the border."""
        margin = self.nms_kernel // 2
        highest = F.pad(F.max_pool2d(heatmap, self.nms_kernel, stride=1), (margin,) * 4)
        return heatmap * ((heatmap == highest) | self.point)
