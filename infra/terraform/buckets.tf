# Two of the three places of a job; the input is the user's. The trail's bucket is in trail.tf.
locals {
  places = toset(["workspace", "release"])
}

resource "aws_s3_bucket" "place" {
  #checkov:skip=CKV_AWS_18:Every object's access is in the trail, which says more than an access log
  #checkov:skip=CKV_AWS_144:Personal data stays in one region; a release is copied by whoever publishes it
  #checkov:skip=CKV2_AWS_62:Nothing here waits for events of a bucket
  #checkov:skip=CKV_AWS_21:The workspace keeps no versions on purpose, see below; the release does
  #checkov:skip=CKV_AWS_145:The release leaves the building, so its readers need no key of ours; the workspace has one
  for_each = local.places
  bucket   = "${var.name}-${each.key}"
}

resource "aws_s3_bucket_public_access_block" "place" {
  for_each                = local.places
  bucket                  = aws_s3_bucket.place[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "place" {
  for_each = local.places
  bucket   = aws_s3_bucket.place[each.key].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "workspace" {
  bucket = aws_s3_bucket.place["workspace"].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.workspace.arn
    }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "release" {
  bucket = aws_s3_bucket.place["release"].id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# No versioning of the workspace: `anonlib purge` must destroy, and a versioned bucket only hides. A purge says so and
# exits with 1 if somebody turns it on. The days below are for a purge that nobody ran; a bucket that was versioned
# for a while loses its old versions after one.
resource "aws_s3_bucket_lifecycle_configuration" "workspace" {
  bucket = aws_s3_bucket.place["workspace"].id
  rule {
    id     = "personal-data-expires"
    status = "Enabled"
    filter {}
    expiration {
      days = var.workspace_days
    }
    noncurrent_version_expiration {
      noncurrent_days = 1
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

# The release keeps what was overwritten or taken back for a week, for who must know what had left the building. No role
# reads it; a photo that a reviewer withheld is gone for good after that.
resource "aws_s3_bucket_versioning" "release" {
  bucket = aws_s3_bucket.place["release"].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "release" {
  bucket = aws_s3_bucket.place["release"].id
  rule {
    id     = "overwritten-goes"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 7
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

# Other rights in the account open nothing: objects are for the job's roles alone, settings of the bucket for the admins.
resource "aws_s3_bucket_policy" "workspace" {
  bucket = aws_s3_bucket.place["workspace"].id
  policy = templatefile("${path.module}/policies/workspace-bucket.json", {
    bucket                = aws_s3_bucket.place["workspace"].id
    principals            = jsonencode(local.workspace_principals)
    principals_and_admins = jsonencode(concat(local.workspace_principals, var.admin_arns))
    admins                = jsonencode(var.admin_arns)
  })
}

resource "aws_s3_bucket_policy" "release" {
  bucket = aws_s3_bucket.place["release"].id
  policy = templatefile("${path.module}/policies/release-bucket.json", {
    bucket = aws_s3_bucket.place["release"].id
  })
}
