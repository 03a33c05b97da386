-- Health of a FineTuneRun, derived from its conditions like in kstatus. The phase is only part of the message.
local function sentence(condition)
  if condition.message == nil or condition.message == "" then
    return condition.reason
  end
  return condition.reason .. ": " .. condition.message
end

local status = obj.status
if status == nil or status.conditions == nil then
  return {status = "Progressing", message = "The operator has not seen the run yet."}
end
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not seen the last change of the run yet."}
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function holds(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end
local summary = status.summary or {}

if holds("Finished") then
  if holds("Succeeded") then
    local model = status.registry
    return {status = "Healthy", message = model and model.name .. ":" .. model.version or "The run has succeeded."}
  end
  -- A rejected model is not a fault, but later waves must not be synced, and only Degraded prevents that.
  return {status = "Degraded", message = sentence(conditions["Succeeded"])}
end
if holds("Stalled") then
  -- A run that waits for capacity is still reconciling; any other stalled run needs a user.
  return {status = holds("Reconciling") and "Progressing" or "Degraded", message = sentence(conditions["Stalled"])}
end
if holds("Suspended") then
  return {status = "Suspended", message = "The run is suspended."}
end
local message = status.phase or "Running"
if summary.progress ~= nil then
  message = message .. ", " .. summary.progress
end
if summary.eta ~= nil then
  message = message .. ", " .. summary.eta .. " left"
end
return {status = "Progressing", message = message}
