# One role a stage, for the run of one release (var.release_prefix). The documents lie in policies/; tests/infra exercises
# them call by call.
locals {
  stages = toset(["scan", "render", "review", "audit", "verify", "purge"])
  # A job that is started as one script scans and renders in one process, so it holds both documents and no more.
  documents = {
    scan   = ["scan"]
    render = ["render"]
    review = ["review"]
    audit  = ["audit"]
    verify = ["verify"]
    purge  = ["purge"]
    job    = ["scan", "render"]
  }
  by_people = length(var.trusted_arns) == 0 ? toset([]) : toset(["review", "audit", "verify", "purge"])
  # A role that nobody could take is not made.
  roles = {
    for name, stages in local.documents : name => stages
    if name == "job" || var.oidc_provider != null || contains(local.by_people, name)
  }
  workspace_principals = concat(
    [for name, role in aws_iam_role.role : role.arn if name != "verify"], [aws_iam_role.head.arn]
  )
  grants = merge([
    for role, stages in local.roles : { for stage in stages : "${role}/${stage}" => { role = role, stage = stage } }
  ]...)
}

data "aws_iam_policy_document" "trust" {
  for_each = local.roles

  dynamic "statement" {
    for_each = var.oidc_provider == null ? [] : [var.oidc_provider]
    content {
      sid     = "ServiceAccount"
      actions = ["sts:AssumeRoleWithWebIdentity"]
      principals {
        type        = "Federated"
        identifiers = ["arn:aws:iam::${data.aws_caller_identity.here.account_id}:oidc-provider/${statement.value}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${statement.value}:sub"
        values   = ["system:serviceaccount:${var.namespace}:anonlib-${each.key}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${statement.value}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = each.key == "job" ? ["ec2.amazonaws.com"] : []
    content {
      sid     = "Machine"
      actions = ["sts:AssumeRole"]
      principals {
        type        = "Service"
        identifiers = [statement.value]
      }
    }
  }

  dynamic "statement" {
    for_each = contains(local.by_people, each.key) ? [var.trusted_arns] : []
    content {
      sid     = "Person"
      actions = ["sts:AssumeRole"]
      principals {
        type        = "AWS"
        identifiers = statement.value
      }
    }
  }
}

resource "aws_iam_role" "role" {
  for_each           = local.roles
  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json
}

resource "aws_iam_policy" "stage" {
  for_each = local.stages
  name     = "${var.name}-${each.key}"
  policy = templatefile("${path.module}/policies/${each.key}.json", {
    input_bucket     = var.input_bucket
    input_prefix     = coalesce(var.input_prefix, var.release_prefix)
    workspace_bucket = aws_s3_bucket.place["workspace"].id
    workspace_prefix = coalesce(var.workspace_prefix, var.release_prefix)
    release_bucket   = aws_s3_bucket.place["release"].id
    release_prefix   = var.release_prefix
    workspace_key    = aws_kms_key.workspace.arn
    secret           = aws_secretsmanager_secret.job["job"].arn
    signing          = aws_secretsmanager_secret.job["signing"].arn
    secret_key       = aws_kms_key.secret.arn
  })
}

resource "aws_iam_role_policy_attachment" "stage" {
  for_each   = local.grants
  role       = aws_iam_role.role[each.value.role].name
  policy_arn = aws_iam_policy.stage[each.value.stage].arn
}

# Photographs that are sealed by a key of the user's are opened by who reads them, through S3 alone.
data "aws_iam_policy_document" "input_key" {
  count = var.input_key == null ? 0 : 1
  statement {
    sid       = "OpenTheInput"
    actions   = ["kms:Decrypt"]
    resources = [var.input_key]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${var.region}.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "input_key" {
  for_each = var.input_key == null ? {} : {
    for name, role in merge(aws_iam_role.role, { head = aws_iam_role.head }) : name => role.id
    if !contains(["verify", "purge"], name)
  }
  name   = "input-key"
  role   = each.value
  policy = data.aws_iam_policy_document.input_key[0].json
}

# Machines of infra/aws/cluster.yaml: workers are the job; the head is the job and starts workers.
resource "aws_iam_instance_profile" "worker" {
  name = "${var.name}-worker"
  role = aws_iam_role.role["job"].name
}

resource "aws_iam_role" "head" {
  name               = "${var.name}-head"
  assume_role_policy = data.aws_iam_policy_document.machine.json
}

data "aws_iam_policy_document" "machine" {
  statement {
    sid     = "Machine"
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "head" {
  #checkov:skip=CKV_AWS_290:RunInstances names subnets and images that are not known here; the request's tag binds it
  #checkov:skip=CKV_AWS_355:Describe calls take no resource
  name = "${var.name}-head"
  policy = templatefile("${path.module}/policies/head.json", {
    region      = var.region
    account     = data.aws_caller_identity.here.account_id
    worker_role = aws_iam_role.role["job"].arn
    cluster     = "anonlib"
  })
}

resource "aws_iam_role_policy_attachment" "head" {
  for_each = {
    scan   = aws_iam_policy.stage["scan"].arn
    render = aws_iam_policy.stage["render"].arn
    head   = aws_iam_policy.head.arn
  }
  role       = aws_iam_role.head.name
  policy_arn = each.value
}

resource "aws_iam_instance_profile" "head" {
  name = "${var.name}-head"
  role = aws_iam_role.head.name
}
