"""Pinhole camera and z-buffer renderer for the planes of a synthetic building."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rrt.scenes.augment import magnification, warp_antialiased
from rrt.scenes.buildings import Building
from rrt.scenes.parts import Face


@dataclass(frozen=True)
class Camera:
    """position [3] in bays; rotation [3, 3] from world to camera (x right, y down, z forward); the rest in pixels."""

    position: np.ndarray
    rotation: np.ndarray
    focal: float
    size: tuple[int, int]  # width, height
    centre: tuple[float, float]

    def matrix(self) -> np.ndarray:
        """The matrix K R, [3, 3]."""
        k = np.array([[self.focal, 0, self.centre[0]], [0, self.focal, self.centre[1]], [0, 0, 1.0]])
        return k @ self.rotation

    def project(self, points) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [N, 2] and depths [N] of world points [N, 3]."""
        p = (np.asarray(points, float) - self.position) @ self.matrix().T
        return p[:, :2] / np.maximum(p[:, 2:], 1e-6), p[:, 2]

    def scaled(self, factor: int) -> Camera:
        """The same view with `factor` times the pixels on each side (pixel centres at whole numbers)."""
        shift = (factor - 1) / 2
        return Camera(
            self.position,
            self.rotation,
            self.focal * factor,
            (self.size[0] * factor, self.size[1] * factor),
            (self.centre[0] * factor + shift, self.centre[1] * factor + shift),
        )


def look_at(position, target, roll: float, focal: float, size, shift=(0.0, 0.0)) -> Camera:
    """A camera at `position` that shows `target` `shift` pixels from the middle of its image, rolled by `roll`
    radians."""
    forward = np.asarray(target, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0, 1.0, 0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ np.stack([right, down, forward])
    centre = ((size[0] - 1) / 2 + shift[0], (size[1] - 1) / 2 + shift[1])
    return Camera(np.asarray(position, float), rotation, focal, tuple(size), centre)


def turned(face: Face, camera: Camera) -> Face:
    """A billboard turned to the camera; other faces as they are."""
    if not face.billboard:
        return face
    middle = face.corner + face.right / 2
    away = camera.position - middle
    sideways = np.array([away[2], 0, -away[0]])
    right = sideways / np.linalg.norm(sideways) * np.linalg.norm(face.right)
    return Face(middle - right / 2, right, face.down, face.levels)


def visible_faces(building: Building, camera: Camera) -> list[Face]:
    """The faces that look towards the camera and are completely in front of it."""
    result = []
    for face in building.faces:
        face = turned(face, camera)
        if (camera.position - face.corner) @ face.normal > 1e-3 and camera.project(face.corners)[1].min() > 0.2:
            result.append(face)
    return result


def face_homography(face: Face, camera: Camera) -> np.ndarray:
    """Homography [3, 3] from texels to the image's pixels; its third coordinate is the depth."""
    height, width = face.levels[0].shape[:2]
    kr = camera.matrix()
    return np.stack([kr @ face.right / width, kr @ face.down / height, kr @ (face.corner - camera.position)], 1)


def render(faces: list[Face], camera: Camera, sun: np.ndarray, ambient: np.ndarray, direct: np.ndarray):
    """Renders `visible_faces` at the camera's size: colour uint8 [H, W, 3] and coverage bool [H, W].

    Faces are lit by Lambert's law: `ambient` + `direct` * max(0, normal . sun), each a colour [3] of factors.
    Since the depth of a plane is the reciprocal of an affine function of the pixel, the z-buffer needs no triangles.
    """
    width, height = camera.size
    colour = np.zeros((height, width, 3), np.uint8)
    nearest = np.zeros((height, width), np.float32)  # 1 / depth
    for face in faces:
        homography = face_homography(face, camera)
        corners, _ = camera.project(face.corners)
        x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (width, height))
        if x1 <= x0 or y1 <= y0:
            continue
        to_box = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]])
        warped = warp_antialiased(face.levels, to_box @ homography, (int(x1 - x0), int(y1 - y0)))
        plane = np.linalg.inv(homography)[2].astype(np.float32)
        inverse_depth = (
            plane[0] * np.arange(x0, x1, dtype=np.float32)[None]
            + (plane[1] * np.arange(y0, y1, dtype=np.float32) + plane[2])[:, None]
        )
        box = (slice(y0, y1), slice(x0, x1))
        shown = ((warped[..., 3] > 127) & (inverse_depth > nearest[box])).view(np.uint8)
        light = ambient + direct * max(0.0, float(face.normal @ sun))
        table = np.clip(np.arange(256)[:, None] * light, 0, 255).astype(np.uint8)
        lit = cv2.LUT(cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), table[None])
        cv2.copyTo(lit, shown, colour[box])
        cv2.copyTo(inverse_depth, shown, nearest[box])
    return colour, nearest > 0


def visible_share(faces: list[Face], camera: Camera, shown: np.ndarray) -> float:
    """Share of the building's surface that looks towards the camera and is seen in the image.

    Each point of a grid on each of the `visible_faces` counts with its projected area, also outside the image. `shown`
    (bool [H, W]) says which pixels show the building; points outside the image or behind an occluder are not seen. A
    part behind another part of the building counts as seen where the other part is seen.
    """
    total = seen = 0.0
    height, width = shown.shape
    grid_u, grid_v = (axis.ravel() for axis in np.meshgrid((np.arange(10) + 0.5) / 10, (np.arange(10) + 0.5) / 10))
    for face in faces:
        texture = face.levels[-1]
        homography = face_homography(face, camera)
        u, v = grid_u, grid_v
        solid = texture[(v * texture.shape[0]).astype(int), (u * texture.shape[1]).astype(int), 3] > 127
        u, v = u[solid], v[solid]
        if not len(u):
            continue
        points = face.corner + u[:, None] * face.right + v[:, None] * face.down
        pixels, _ = camera.project(points)
        rows, columns = face.levels[0].shape[:2]
        weight = magnification(homography, u * columns, v * rows) ** 2 * rows * columns / 100
        at = np.rint(pixels).astype(int)
        inside = (at[:, 0] >= 0) & (at[:, 1] >= 0) & (at[:, 0] < width) & (at[:, 1] < height)
        on = np.zeros(len(at), bool)
        on[inside] = shown[at[inside, 1], at[inside, 0]]
        total += weight.sum()
        seen += weight[on].sum()
    return float(seen / total) if total else 0.0
